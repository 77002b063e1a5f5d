/* The studies that were read: searched and shown anew in place. The search is sent in a body. */

import { calmly, followChanges } from "./live.js";
import { handleReading, learnServerTime, replaceParts } from "./page.js";

const form = document.getElementById("search");
let page = "1";

const refresh = calmly(async () => {
  const body = new URLSearchParams({ text: form.elements.text.value, page });
  const response = await fetch("/read", { method: "POST", headers: { Accept: "text/html" }, body });
  if (!response.ok) return;
  learnServerTime(response);
  replaceParts(new DOMParser().parseFromString(await response.text(), "text/html"));
}, 250);

form.addEventListener("submit", (event) => {
  event.preventDefault();
  page = event.submitter?.name === "page" ? event.submitter.value : "1";
  refresh();
});
form.addEventListener("input", () => {
  page = "1";
  refresh();
});
followChanges(refresh);
handleReading(refresh);
