/* The worklist: live, filtered, claimed, all without a reload. */

import { changeClaim, writeClaims } from "./claims.js";
import { Filters } from "./filters.js";
import { focusOn, handleKeys } from "./keys.js";
import { calmly, followChanges } from "./live.js";
import { announce, handleReading, learnServerTime, writeTimes } from "./page.js";
import { Rows } from "./rows.js";

const LOOK_AGAIN_MS = 60_000; // a claim that has run out makes no event
const byId = (id) => document.getElementById(id);
const list = byId("list");
const me = list.dataset.me;
let page = Number(list.dataset.page);
let tag = "";
let asked = "";

const rows = new Rows({
  onShown: () => writeClaims(rows?.body ?? document, me),
  onWaiting: (count) => {
    byId("waits").hidden = !count;
    if (count) byId("waits-text").textContent = `${count} change${count === 1 ? " waits" : "s wait"} while you point at a study.`;
  },
});
rows.firstPlace = (page - 1) * Number(list.dataset.pageSize) + 1;
const filters = new Filters(list, () => {
  page = 1;
  refresh();
});

async function fetchList() {
  const wants = JSON.stringify({ wanted: filters.wanted, page });
  const isSameList = wants === asked || !asked;
  const response = await fetch("/worklist/rows", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json", "X-Triage-Request": "background" },
    body: JSON.stringify({ wanted: filters.wanted, page, tag }),
  });
  if (response.status === 304) return void (asked = wants);
  if (response.status === 401) return location.reload(); // the session is over: to the log-in page
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  learnServerTime(response);
  const answer = await response.json();
  if (wants !== JSON.stringify({ wanted: filters.wanted, page })) return refresh(); // another was asked for
  asked = wants;
  tag = answer.tag;
  rows.firstPlace = (page - 1) * Number(list.dataset.pageSize) + 1;
  write("summary", answer.summary);
  write("below", answer.below);
  const flagged = rows.show(answer.order, answer.rows, isSameList);
  if (flagged.length) announce(flagged.map((row) => `Flagged. ${row.dataset.said}`).join(". "));
}

function write(id, html) {
  if (byId(id).innerHTML !== html) byId(id).innerHTML = html; // the server's own, with everything escaped
}

const refresh = calmly(() => fetchList().catch((error) => console.warn("worklist:", error.message)));

function turnTo(number) {
  page = number;
  refresh();
  scrollTo(0, 0);
}

document.addEventListener("click", async (event) => {
  const turn = event.target.closest("a[data-page]");
  if (turn && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    turnTo(Number(turn.dataset.page));
  }
  const claim = event.target.closest("#rows button[data-claim]");
  if (claim && (await changeClaim(claim.dataset.claim, claim.dataset.by, me))) refresh();
});
list.addEventListener("error", (event) => event.target.matches("img") && (event.target.hidden = true), true); // no picture
byId("waits-now").addEventListener("click", () => rows.settle());
byId("keys-open").addEventListener("click", () => byId("keys").showModal());

handleKeys(rows, {
  read(row) {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.querySelector("form[data-reading]").requestSubmit();
    if (next) focusOn(next);
    else document.activeElement.blur();
  },
  next: () => location.assign(`/next?after=0`),
  search: () => byId("filter-text").select(),
  filters: () => filters.toggle(),
  clear: () => filters.clear(),
  earlier: () => document.querySelector('a[rel="prev"]')?.click(),
  later: () => document.querySelector('a[rel="next"]')?.click(),
  help: () => byId("keys").showModal(),
  escape: () => (byId("filter-panel").hidden ? document.activeElement.blur() : filters.toggle(false)),
});
writeClaims(document, me);
writeTimes();
handleReading(() => {
  rows.letGo();
  refresh();
});
followChanges(refresh);
setInterval(refresh, LOOK_AGAIN_MS);
if (filters.isRestored) refresh();
