/* What this computer does when something new comes: asked for by a click, never before. */

import { toast } from "./page.js";
import { sound } from "./sound.js";

const soundButton = document.getElementById("sound");
const desktopButton = document.getElementById("desktop");
document.getElementById("here").hidden = false;

function write() {
  soundButton.ariaPressed = localStorage.getItem("triage-sound") === "on";
  desktopButton.ariaPressed = globalThis.Notification?.permission === "granted";
  desktopButton.hidden = !("Notification" in globalThis) || !isSecureContext;
}

soundButton.addEventListener("click", () => {
  const isOn = localStorage.getItem("triage-sound") === "on";
  localStorage.setItem("triage-sound", isOn ? "off" : "on");
  if (!isOn) sound();
  write();
});

desktopButton.addEventListener("click", async () => {
  const permission = await Notification.requestPermission();
  const said = { granted: "Shown here while Triage is open. To end it, use the browser's settings for this page.", denied: "The browser does not allow it; its settings for this page can.", default: "Nothing was changed." };
  toast(said[permission]);
  write();
});

write();
