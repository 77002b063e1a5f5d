/* The worklist: rows come, move and go in place, without a reload. */

import { calmly, followChanges } from "./live.js";
import { announce, handleReading, learnServerTime, writeTimes } from "./page.js";

const MOVE = { duration: 420, easing: "cubic-bezier(.2, .7, .2, 1)" };
const list = document.getElementById("list");
const filters = {
  form: document.getElementById("filters"),
  text: document.getElementById("filter-text"),
  modality: document.getElementById("filter-modality"),
  flagged: document.getElementById("filter-flagged"),
  count: document.getElementById("filter-count"),
};
let tag = null;
const shown = new Map([...rows()].map((row) => [row.dataset.uid, withoutTimes(row)]));

function rows() {
  return document.querySelectorAll("#rows > tr");
}

async function fetchList() {
  const response = await fetch(list.dataset.source, {
    headers: { Accept: "text/html", "X-Triage-Request": "background", ...(tag ? { "If-None-Match": tag } : {}) },
  });
  if (response.status === 304) return;
  if (response.redirected) return location.reload(); // the session is over: to the log-in page
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  learnServerTime(response);
  tag = response.headers.get("etag");
  show(new DOMParser().parseFromString(await response.text(), "text/html"));
}

function show(fresh) {
  const before = new Map([...rows()].map((row) => [row.dataset.uid, row.getBoundingClientRect().top]));
  const wasFlagged = new Set([...rows()].filter(isFlagged).map((row) => row.dataset.uid));
  const focused = document.activeElement?.closest?.("#rows > tr")?.dataset.uid;
  for (const part of ["summary", "below"]) {
    document.getElementById(part).replaceWith(fresh.getElementById(part));
  }
  placeRows([...fresh.querySelectorAll("#rows > tr")]);
  applyFilters();
  writeTimes(list);
  animate(before);
  const flagged = [...rows()].filter((row) => isFlagged(row) && !wasFlagged.has(row.dataset.uid));
  flagged.forEach(highlight);
  if (flagged.length) announce(flagged.map((row) => `Flagged. ${row.dataset.said}`).join(". "));
  if (focused && !document.activeElement?.closest?.("#rows > tr")) {
    document.querySelector(`#rows > tr[data-uid="${CSS.escape(focused)}"] a.open`)?.focus({ preventScroll: true });
  }
}

/** Put the fresh rows in order; a row that says the same stays the same element. */
function placeRows(fresh) {
  const body = document.getElementById("rows");
  const old = new Map([...rows()].map((row) => [row.dataset.uid, row]));
  const wanted = fresh.map((row) => {
    const uid = row.dataset.uid;
    const said = withoutTimes(row);
    const known = old.get(uid);
    old.delete(uid);
    if (known && shown.get(uid) === said) return known;
    shown.set(uid, said);
    known?.replaceWith(row);
    return row;
  });
  for (const [uid, gone] of old) {
    gone.remove();
    shown.delete(uid);
  }
  wanted.forEach((row, place) => {
    if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
  });
}

/** Return what a row says, without the waiting time, which this page counts by itself. */
function withoutTimes(row) {
  const copy = row.cloneNode(true);
  copy.querySelectorAll("time[data-waiting]").forEach((time) => (time.textContent = ""));
  return copy.outerHTML;
}

function isFlagged(row) {
  return row.dataset.flagged === "yes";
}

function animate(before) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const row of rows()) {
    const top = row.getBoundingClientRect().top;
    if (!before.has(row.dataset.uid)) {
      row.animate([{ opacity: 0 }, { opacity: 1 }], MOVE);
    } else if (Math.abs(before.get(row.dataset.uid) - top) > 1) {
      const from = `translateY(${before.get(row.dataset.uid) - top}px)`;
      row.animate([{ transform: from }, { transform: "none" }], MOVE);
    }
  }
}

function highlight(row) {
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--flag");
  for (const cell of row.cells) {
    const glow = `color-mix(in srgb, ${colour} 38%, transparent)`;
    cell.animate([{ backgroundColor: glow }, { backgroundColor: "transparent" }], { duration: 4000, easing: "ease-in" });
  }
}

function applyFilters() {
  const words = filters.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const modality = filters.modality.value;
  let count = 0;
  let total = 0;
  for (const row of rows()) {
    const isKept =
      words.every((word) => row.dataset.search.includes(word)) &&
      (!modality || row.dataset.modalities.split(" ").includes(modality)) &&
      (!filters.flagged.checked || isFlagged(row));
    row.classList.toggle("filtered", !isKept);
    total += 1;
    count += isKept ? 1 : 0;
  }
  filters.count.textContent = count === total ? "" : `${count} of ${total} shown`;
  offerModalities();
}

function offerModalities() {
  const there = new Set([...rows()].flatMap((row) => row.dataset.modalities.split(" ").filter(Boolean)));
  const offered = new Set([...filters.modality.options].map((option) => option.value));
  for (const name of [...there].sort()) {
    if (!offered.has(name)) filters.modality.add(new Option(name, name));
  }
}

const refresh = calmly(() => fetchList().catch((error) => console.warn("worklist:", error.message)));

filters.form.addEventListener("submit", (event) => event.preventDefault());
filters.form.addEventListener("input", applyFilters);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, textarea")) {
    event.preventDefault();
    filters.text.focus();
  }
});
applyFilters();
handleReading(refresh);
followChanges(refresh);
