/* Pages of jobs: looked at again every second as long as one is open, and the page is seen. */

import { refresh } from "./refresh.js";

const POLL_MS = 1000;

setInterval(() => {
  if (!document.hidden && document.querySelector("[data-open-job]")) refresh();
}, POLL_MS);

/* A large upload takes a while: the button says so, and a second click sends nothing twice. */
document.addEventListener("submit", (event) => {
  const button = event.target.closest("form[data-upload]")?.querySelector("button");
  if (!button) return;
  button.disabled = true;
  button.textContent = "Sending …";
});
addEventListener("pageshow", (event) => event.persisted && location.reload());
