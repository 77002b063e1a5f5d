/* Who reads what: claim a study, give it back, take it over with a word; the server says what holds. */

import { toast } from "./page.js";

const OURS = { "Content-Type": "application/json", Accept: "application/json" };

async function ask(method, uid, body = {}, more = {}) {
  const answer = await fetch(`/api/v1/studies/${uid}/claim`, {
    method,
    headers: { ...OURS, ...more },
    ...(method === "PUT" ? { body: JSON.stringify(body) } : {}),
  });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `the server answered ${answer.status}`);
  return answer.status === 204 ? {} : answer.json();
}

export const renew = (uid) => ask("PUT", uid, { only_renew: true }, { "X-Triage-Request": "background" });

/** Claim the study, release one's own claim, or take it over from `by`; true where something changed. */
export async function changeClaim(uid, by, me) {
  try {
    if (by && by === me) {
      await ask("DELETE", uid);
      toast("Released.");
    } else if (by) {
      const because = await askWhy(by);
      if (!because) return false;
      await ask("PUT", uid, { take_over_because: because });
      toast(`Taken over from ${by}.`);
    } else {
      await ask("PUT", uid);
      toast("Claimed: others see that you read it.");
    }
    return true;
  } catch (error) {
    toast(`Nothing was changed: ${error.message}`);
    return true; // what is shown may be old
  }
}

/** Ask in a dialog why a study is taken over; resolves to "" where it is not. */
function askWhy(by) {
  const dialog = document.createElement("dialog");
  dialog.className = "ask-why";
  dialog.setAttribute("aria-labelledby", "ask-why-title");
  const form = Object.assign(document.createElement("form"), { method: "dialog" });
  const title = Object.assign(document.createElement("h2"), { id: "ask-why-title" });
  title.textContent = `${by} is reading this study`;
  const label = Object.assign(document.createElement("label"), { textContent: "Why you take it over (no patient data) " });
  const input = Object.assign(document.createElement("input"), { type: "text", maxLength: 200, required: true });
  label.append(input);
  const actions = Object.assign(document.createElement("div"), { className: "actions" });
  const take = Object.assign(document.createElement("button"), { className: "main", value: "take", textContent: "Take over" });
  const leave = Object.assign(document.createElement("button"), { type: "button", textContent: "Leave it" });
  leave.addEventListener("click", () => dialog.close(""));
  actions.append(take, leave);
  form.append(title, label, actions);
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "take" ? input.value.trim() : "");
    });
  });
}

/** Let the buttons and marks of claims speak to the person who looks. */
export function writeClaims(root, me) {
  for (const mark of root.querySelectorAll("[data-claimed-by]")) {
    const isMine = mark.dataset.claimedBy === me;
    mark.classList.toggle("mine", isMine);
    mark.textContent = isMine ? "You are reading" : `${mark.dataset.claimedBy} is reading`;
    mark.closest("tr")?.classList.toggle("mine", isMine);
  }
  for (const button of root.querySelectorAll("button[data-claim]")) {
    const { by } = button.dataset;
    const word = !by ? "Claim" : by === me ? "Release" : "Take over";
    button.textContent = word;
    const [, name] = (button.getAttribute("aria-label") ?? "").split(/: (.*)/);
    if (name) button.setAttribute("aria-label", `${word}: ${name}`);
  }
}
