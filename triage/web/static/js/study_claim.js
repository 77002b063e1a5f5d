/* The claim of the study whose page is open: shown, changed, and held while the page is seen. */

import { changeClaim, renew, writeClaims } from "./claims.js";

const study = document.getElementById("study");
const { me, uid } = study.dataset;
const isMine = () => Boolean(me) && study.querySelector("[data-claim]")?.dataset.by === me;

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-claim]");
  if (button) changeClaim(uid, button.dataset.by, me); // the page hears of it, as all others do
});

function hold() {
  if (isMine()) renew(uid).catch((error) => console.warn("claim:", error.message));
}

hold();
setInterval(hold, Math.max(1, Number(study.dataset.renewS)) * 1000);
writeClaims(study, me);
new MutationObserver(() => writeClaims(study, me)).observe(document.getElementById("study-head"), { childList: true });
