/* What every page does: moments in the reader's time zone, waiting times that go on, reading. */

const dayAndTime = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
const timeOnly = new Intl.DateTimeFormat("sv-SE", { timeStyle: "medium" });

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(seconds / 3600);
  const days = Math.floor(seconds / 86400);
  if (hours < 1) return `${minutes} min`;
  if (days < 1) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${days} d ${hours % 24} h`;
}

const SOON_S = 600;
let clockAheadMs = 0;

/** Learn how far this computer's clock is ahead of the server's: waiting times are the server's. */
export function learnServerTime(response) {
  const served = Date.parse(response.headers.get("date") ?? "");
  if (Number.isFinite(served) && Math.abs(Date.now() - served) > 2000) clockAheadMs = Date.now() - served;
}

export function writeTimes(root = document) {
  const now = Date.now() - clockAheadMs;
  const today = new Date(now).toDateString();
  for (const time of root.querySelectorAll("time[data-moment]")) {
    const moment = new Date(time.dateTime);
    const format = moment.toDateString() === today ? timeOnly : dayAndTime;
    time.title = dayAndTime.format(moment);
    setText(time, format.format(moment));
  }
  for (const time of root.querySelectorAll("time[data-waiting]")) {
    setText(time, duration((now - Date.parse(time.dateTime)) / 1000));
  }
  for (const time of root.querySelectorAll("time[data-due]")) {
    const left = (Date.parse(time.dateTime) - now) / 1000;
    setText(time, left >= 0 ? `due in ${duration(left)}` : `${duration(-left)} over target`);
    time.classList.toggle("late", left < 0);
    time.classList.toggle("soon", left >= 0 && left < SOON_S);
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function announce(text) {
  const place = document.getElementById("announcer");
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 50);
}

let toastTimer = null;

export function toast(text, action = null) {
  const place = document.getElementById("toast");
  place.replaceChildren(Object.assign(document.createElement("span"), { textContent: text }));
  place.firstChild.role = "status";
  if (action) {
    const button = document.createElement("button");
    button.textContent = action.label;
    button.addEventListener("click", () => {
      place.hidden = true;
      action.run();
    });
    place.append(button);
  }
  place.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (place.hidden = true), 9000);
}

export async function post(address, body = null) {
  const response = await fetch(address, {
    method: "POST",
    body,
    headers: { "X-Triage-Request": "page", Accept: "application/json" },
    redirect: "manual", // the answer is a way back for pages without script
  });
  if (response.type !== "opaqueredirect" && !response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Error(said.detail ?? `the server answered ${response.status}`);
  }
}

/** Let the buttons "mark as read" and "put back" work without leaving the page. */
export function handleReading(onDone) {
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-reading]");
    if (!form) return;
    event.preventDefault();
    const address = form.getAttribute("action");
    const isRead = address.endsWith("/read");
    const undo = address.replace(/(un)?read$/, isRead ? "unread" : "read");
    form.querySelector("button").disabled = true;
    try {
      await post(address);
      toast(isRead ? "Marked as read." : "Put back on the worklist.", {
        label: "Undo",
        run: () => post(undo).then(onDone, (error) => toast(`Not undone: ${error.message}`)),
      });
    } catch (error) {
      toast(`Nothing was changed: ${error.message}`);
    }
    form.querySelector("button").disabled = false;
    onDone();
  });
}

/** Let the buttons "agree", "disagree" and "unsure" work without leaving the page. */
export function handleFeedback(onDone) {
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-feedback]");
    if (!form) return;
    event.preventDefault();
    try {
      await post(form.getAttribute("action"), new FormData(form, event.submitter));
      toast("Noted.");
      form.reset();
    } catch (error) {
      toast(`Nothing was noted: ${error.message}`);
    }
    onDone();
  });
}

/** Let the button "withdraw" work without leaving the page. */
export function handleWithdrawal(onDone) {
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-withdraw]");
    if (!form) return;
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      await post(form.getAttribute("action"), new FormData(form));
      toast("Withdrawn. The archives that have it are told.");
    } catch (error) {
      toast(`Nothing was changed: ${error.message}`);
    }
    button.disabled = false;
    form.querySelector("details").open = false;
    onDone();
  });
}

const shown = new Map();

/** Replace the parts of this page that differ from `fresh`, a newly fetched document. */
export function replaceParts(fresh) {
  const changed = [];
  for (const part of document.querySelectorAll("[data-live][id]")) {
    const newer = fresh.getElementById(part.id);
    if (!newer || shown.get(part.id) === newer.innerHTML || isBeingWrittenIn(part)) continue;
    shown.set(part.id, newer.innerHTML);
    part.className = newer.className;
    part.replaceChildren(...newer.childNodes);
    changed.push(part.id);
  }
  writeTimes();
  return changed;
}

/** Whether somebody is giving a reason there; it would be lost. */
function isBeingWrittenIn(part) {
  if (part.querySelector("form[data-withdraw] details[open]")) return true;
  if (part.contains(document.activeElement?.closest("details.decide[open]"))) return true;
  return [...part.querySelectorAll("details[open] input")].some((input) => input.value !== input.defaultValue);
}

writeTimes();
setInterval(writeTimes, 1000);
