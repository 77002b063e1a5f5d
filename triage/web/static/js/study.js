/* The study page: series, viewer and findings together, kept up to date. */

import { handleGestures } from "./gestures.js";
import { calmly, followChanges } from "./live.js";
import { Overlays } from "./overlay.js";
import { announce, handleFeedback, handleReading, handleWithdrawal, learnServerTime, replaceParts } from "./page.js";
import { Viewer, WINDOWS } from "./viewer.js";

const byId = (id) => document.getElementById(id);
const uid = byId("study").dataset.uid;
const place = {
  viewport: byId("viewport"),
  canvas: byId("canvas"),
  marks: byId("marks"),
  slider: byId("slider"),
  message: byId("viewer-message"),
  corners: {
    image: byId("corner-image"),
    series: byId("corner-series"),
    value: byId("corner-value"),
    window: byId("corner-window"),
  },
};
const overlays = new Overlays(uid);
const viewer = new Viewer(uid, overlays, place, showState);
const actions = {
  overlay: () => viewer.toggleOverlay(),
  jump: () => viewer.jumpToNext(),
  invert: () => viewer.toggleInvert(),
  fit: () => viewer.fit(),
};
let study = null;

async function load() {
  const laidOver = overlays.load().catch((error) => {
    console.warn("overlays:", error.message);
    return false;
  });
  const response = await fetch(`/api/v1/studies/${uid}`, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  learnServerTime(response);
  study = await response.json();
  byId("corner-patient").textContent = [study.patient.name, study.patient.patient_id].filter(Boolean).join("\n");
  if (!viewer.series) openFirst(); // the image does not wait for what is laid over it
  const overlaysChanged = await laidOver;
  if (overlaysChanged) showLegend();
  if (!viewer.series) return;
  const series = seriesOf(viewer.series.series_instance_uid);
  const isSame = series && JSON.stringify(series.images) === JSON.stringify(viewer.series.images);
  if (series && (!isSame || overlaysChanged)) await viewer.open(series);
}

function seriesOf(seriesUid) {
  return study.series.find((series) => series.series_instance_uid === seriesUid);
}

/** Open at the most urgent finding, or else in the middle of the series with the most images. */
function openFirst() {
  for (const finding of study.findings.filter((one) => one.present)) {
    if (finding.key_image_uids.length && showImage(finding.key_image_uids[0])) return;
  }
  const frames = (series) => series.images.reduce((sum, image) => sum + image.frames, 0);
  const withImages = study.series.filter((series) => series.images.length);
  const received = withImages.filter((series) => !series.is_result);
  const [largest] = (received.length ? received : withImages).sort((a, b) => frames(b) - frames(a));
  if (largest) viewer.open(largest);
  else if (study.purged_at) viewer.say(`The images were deleted on ${study.purged_at.slice(0, 10)}: ${study.purge_reason}.`);
  else viewer.say(study.state === "receiving" ? "No image has arrived yet." : "This study has no images to show.");
}

function showImage(imageUid) {
  const series = study.series.find((one) => one.images.some((image) => image.sop_instance_uid === imageUid));
  if (series) viewer.open(series, imageUid);
  return Boolean(series);
}

function showLegend() {
  const legend = byId("legend");
  legend.replaceChildren();
  for (const overlay of overlays.list) {
    if (overlay.error) viewer.say(`The AI overlay cannot be shown: ${overlay.error}`);
    for (const segment of overlay.segments) {
      legend.append(legendItem(`${overlay.segmentation_uid}/${segment.number}`, segment));
    }
  }
  byId("overlay-tools").hidden = !overlays.byImage.size;
}

function legendItem(key, segment) {
  const item = document.createElement("li");
  const label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !overlays.hidden.has(key) });
  const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
  swatch.style.backgroundColor = `rgb(${segment.rgb.join(" ")})`;
  box.addEventListener("change", () => {
    overlays.hidden[box.checked ? "delete" : "add"](key);
    viewer.repaint();
  });
  label.append(box, swatch, segment.label);
  item.append(label);
  return item;
}

/** Let the buttons say what is shown. */
function showState() {
  const opened = viewer.series?.series_instance_uid;
  for (const button of document.querySelectorAll("button[data-series]")) {
    button.setAttribute("aria-pressed", String(button.dataset.series === opened));
  }
  for (const button of document.querySelectorAll("button[data-window]")) {
    const wanted = WINDOWS[button.dataset.window];
    const { window } = viewer;
    const isOn = wanted ? window?.center === wanted.center && window?.width === wanted.width : window === null;
    button.setAttribute("aria-pressed", String(isOn));
    button.hidden = Boolean(wanted) && viewer.series?.modality !== "CT"; // they are in HU
  }
  byId("stack").hidden = viewer.images.length < 2;
  document.querySelector('[data-do="overlay"]').setAttribute("aria-pressed", String(viewer.isOverlayOn));
  document.querySelector('[data-do="invert"]').setAttribute("aria-pressed", String(viewer.isInverted));
  byId("legend").hidden = !viewer.isOverlayOn || !viewer.images.some((image) => overlays.isOn(image));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { series, window: preset, do: action, show, open } = button.dataset;
  if (series || open) {
    const found = seriesOf(series ?? open);
    if (found) viewer.open(found);
  }
  if (preset) viewer.setWindow(WINDOWS[preset]);
  if (action) actions[action]();
  if (show) showImage(show);
});
byId("opacity").addEventListener("input", (event) => viewer.setOpacity(Number(event.target.value) / 100));

const refresh = calmly(async () => {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok) return;
  const wasFlagged = byId("study-head").classList.contains("flagged");
  replaceParts(new DOMParser().parseFromString(await response.text(), "text/html"));
  const verdict = document.querySelector(".verdict").innerText;
  if (!wasFlagged && byId("study-head").classList.contains("flagged")) announce(`Flagged. ${verdict}`);
  await load();
  showState();
}, 300);

handleGestures(viewer, place, actions);
handleReading(refresh);
handleFeedback(refresh);
handleWithdrawal(refresh);
load().catch((error) => viewer.say(`The study cannot be shown: ${error.message}`, true));
followChanges((change) => {
  if (uid in change.studies || change.all) refresh();
});
