/* A simulation takes a few seconds: the button says so, and a second click asks for nothing twice. */

import "./page.js";

document.addEventListener("submit", (event) => {
  const button = event.target.closest("form[data-simulate]")?.querySelector("button");
  if (!button) return;
  button.disabled = true;
  button.textContent = "Simulating …";
});
addEventListener("pageshow", (event) => event.persisted && location.reload());
