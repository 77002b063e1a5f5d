/* The bell on every page: how many findings wait for an acknowledgement, and the most urgent one. */

import { calmly, followChanges } from "./live.js";
import { announce, post, toast } from "./page.js";
import { sound } from "./sound.js";

const bell = document.getElementById("bell");
const count = document.getElementById("bell-count");
const header = document.querySelector("header.bar");
const kept = {
  get: (name) => Number(localStorage.getItem(`triage-${name}`) ?? 0),
  set: (name, value) => localStorage.setItem(`triage-${name}`, value),
};
const later = new Set(JSON.parse(sessionStorage.getItem("triage-later") ?? "[]"));

async function look() {
  const response = await fetch("/api/v1/notifications/bell", { headers: { Accept: "application/json", "X-Triage-Request": "background" } });
  if (!response.ok) return;
  const waiting = await response.json();
  count.textContent = waiting.count > 99 ? "99+" : waiting.count;
  count.hidden = waiting.count === 0;
  bell.toggleAttribute("data-waiting", waiting.count > 0);
  bell.ariaLabel = waiting.count ? `Notifications, ${waiting.count} to acknowledge` : "Notifications";
  const first = waiting.entries.find((one) => !later.has(one.notification_id));
  show(first, waiting.count);
  const newest = Math.max(0, ...waiting.entries.map((one) => one.notification_id));
  if (newest > kept.get("newest-notification")) {
    kept.set("newest-notification", newest);
    alarm(waiting.entries.find((one) => one.notification_id === newest));
  }
}

/** Show the most urgent one under the bar; it neither covers the list nor takes the focus. */
function show(one, total) {
  const shown = document.getElementById("alert");
  const key = one ? `${one.notification_id} ${total}` : "";
  if (shown?.dataset.key === key) return;
  shown?.remove();
  if (!one) return;
  const said = element("p", "alert-text");
  const more = total > 1 ? ` · ${total - 1} more` : "";
  said.append(
    element("strong", "", `${one.priority === "stat" ? "STAT" : one.priority}: ${one.said}`),
    ` · ${one.modalities.join(", ")} ${one.patient}${more}`,
  );
  const form = Object.assign(element("form"), { method: "post", action: `/notifications/${one.notification_id}/acknowledge` });
  form.dataset.acknowledge = "";
  form.append(element("button", "main", "Acknowledge"));
  const hide = element("button", "quiet", "Later");
  hide.addEventListener("click", () => {
    later.add(one.notification_id);
    sessionStorage.setItem("triage-later", JSON.stringify([...later]));
    refresh();
  });
  const acts = element("div", "acts");
  acts.append(form, Object.assign(element("a", "", "Open study"), { href: `/studies/${one.study_instance_uid}` }), hide);
  const place = Object.assign(element("section", "alert"), { id: "alert", ariaLabel: "Notification" });
  place.dataset.key = key;
  place.append(said, acts);
  header.after(place);
}

function element(name, className = "", text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

/** Make heard and seen what is new; what may be seen over a shoulder names no patient. */
function alarm(one) {
  const title = `${one.priority.toUpperCase()}: ${one.finding} (${one.modalities.join(", ") || "study"})`;
  announce(`Notification. ${title}`);
  if (localStorage.getItem("triage-sound") === "on") sound();
  if (document.hidden && globalThis.Notification?.permission === "granted") {
    const note = new Notification(title, { body: "See and acknowledge it in Triage", tag: `triage-${one.notification_id}` });
    note.addEventListener("click", () => {
      window.focus();
      location.assign(`/notifications/${one.notification_id}`);
    });
  }
}

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-acknowledge]");
  if (!form) return;
  event.preventDefault();
  form.querySelector("button").disabled = true;
  try {
    await post(form.getAttribute("action"));
    toast("Acknowledged.");
  } catch (error) {
    toast(`Not acknowledged: ${error.message}`);
    form.querySelector("button").disabled = false;
  }
  refresh();
});

const refresh = calmly(() => look().catch((error) => console.warn("notifications:", error.message)));
followChanges(refresh);
refresh();
