/* The study page: series, viewer and findings together, kept up to date. */

import { Annotations } from "./annotations.js";
import { Answers } from "./answers.js";
import { Cine } from "./cine.js";
import { Comparison } from "./comparison.js";
import { handleKeys, handlePointer } from "./gestures.js";
import { drawScale, HeatMaps } from "./heat.js";
import { calmly, followChanges } from "./live.js";
import { Overlays } from "./overlay.js";
import { announce, handleFeedback, handleReading, handleWithdrawal, learnServerTime, replaceParts } from "./page.js";
import { Frames } from "./pixels.js";
import { placeOf, Viewer, WINDOWS } from "./viewer.js";

const byId = (id) => document.getElementById(id);
const uid = byId("study").dataset.uid;
const overlays = new Overlays(uid);
const heatMaps = new HeatMaps(uid);
const annotations = new Annotations(uid);
const frames = new Frames();
const place = placeOf("");
const viewer = new Viewer({ frames, overlays, heatMaps, place, annotations, onChange: showState });
const comparison = new Comparison({ frames, main: viewer, annotations, onChange: showState });
const cine = new Cine(() => comparison.viewerInUse, byId("rate"), showState);
const refresh = calmly(bringUpToDate, 300);
const answers = new Answers({ studyUid: uid, jumpTo, showImage, viewer, annotations, refresh });
let study = null;

const actions = {
  overlay: () => viewer.set({ isOverlayOn: !viewer.isOverlayOn }),
  heat: () => viewer.set({ isHeatOn: !viewer.isHeatOn }),
  jump: () => viewer.jumpToNext(),
  invert: () => inUse((one) => one.set({ isInverted: !one.isInverted })),
  fit: () => inUse((one) => one.fit()),
  turn: () => inUse((one) => one.turn()),
  flip: () => inUse((one) => one.flip()),
  play: () => cine.toggle(),
  length: toggleLength,
  clear: () => inUse((one) => (annotations.clear(one.image), one.draw())),
  whole: toggleWholeScreen,
  link: () => comparison.toggleLink(),
  apart: () => comparison.close(),
};

function inUse(act) {
  act(comparison.viewerInUse);
}

function toggleLength() {
  annotations.tool = annotations.tool === "length" ? "" : "length";
  showState();
}

function toggleWholeScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else byId("viewer").requestFullscreen?.().catch(() => viewer.say("This browser does not fill the screen."));
}

/** Show the study as the page `from` says that it is. */
async function load(from) {
  study = JSON.parse(from.getElementById("study").dataset.study);
  const laidOver = Promise.all([overlays, heatMaps].map((one) => one.load(document).catch((error) => {
    console.warn("overlays:", error.message);
    return false;
  })));
  answers.take(study);
  byId("corner-patient").textContent = [study.patient.name, study.patient.patient_id, study.study_date].filter(Boolean).join("\n");
  if (!viewer.series) openFirst(); // the image does not wait for what is laid over it
  const overlaysChanged = (await laidOver).some(Boolean);
  if (overlaysChanged) showLegend();
  if (!viewer.series) return;
  const series = seriesOf(viewer.series.series_instance_uid);
  const isSame = series && JSON.stringify(series.images) === JSON.stringify(viewer.series.images);
  if (series && (!isSame || overlaysChanged)) await viewer.open(uid, series);
  else viewer.draw(); // reports may have come or gone
}

function seriesOf(seriesUid) {
  return study.series.find((series) => series.series_instance_uid === seriesUid);
}

/** Open where the study says: at its most urgent finding, or in the middle of its longest series. */
function openFirst() {
  const { opening } = study;
  if (opening?.finding_id) answers.hold(opening.finding_id);
  if (opening) viewer.open(uid, seriesOf(opening.series_instance_uid), { uid: opening.sop_instance_uid, frame: opening.frame });
  else if (study.purged_at) viewer.say(`The images were deleted on ${study.purged_at.slice(0, 10)}: ${study.purge_reason}.`);
  else viewer.say(study.state === "receiving" ? "No image has arrived yet." : "This study has no images to show.");
}

function showImage(imageUid, frame = null) {
  const series = study.series.find((one) => one.images.some((image) => image.sop_instance_uid === imageUid));
  if (series) viewer.open(uid, series, { uid: imageUid, frame });
  return Boolean(series);
}

/** Show a finding where it is seen best: its key image, or the middle of its outline. */
function jumpTo(finding) {
  const [keyImage] = finding.key_image_uids;
  if (keyImage && showImage(keyImage, finding.key_image_frames[0])) return;
  const middle = overlays.middleOf(finding.segmentation_uid, finding.segment_number);
  if (middle) showImage(middle.uid, middle.frame);
}

/** Lay the heat map over its image that came in this series; return whether there is one. */
function showHeatMap(seriesUid) {
  const map = heatMaps.list.find((one) => one.series_instance_uid === seriesUid && one.images.length);
  if (!map) return false;
  heatMaps.chosen = map.map_uid;
  byId("heat-map").value = map.map_uid;
  viewer.isHeatOn = true;
  return showImage(map.images[0].sop_instance_uid, map.images[0].frame);
}

function showLegend() {
  const legend = byId("legend");
  legend.replaceChildren();
  for (const overlay of [...overlays.list, ...heatMaps.list]) {
    if (overlay.error) viewer.say(`The AI overlay cannot be shown: ${overlay.error}`);
  }
  for (const overlay of overlays.list) {
    for (const segment of overlay.segments) {
      legend.append(segmentItem(`${overlay.segmentation_uid}/${segment.number}`, segment));
    }
  }
  byId("overlay-tools").hidden = !overlays.byImage.size;
  byId("heat-tools").hidden = !heatMaps.map;
  byId("heat-map").replaceChildren(
    ...heatMaps.list.filter((map) => map.images.length).map((map) =>
      Object.assign(document.createElement("option"), { value: map.map_uid, textContent: map.label }),
    ),
  );
  byId("heat-map").value = heatMaps.chosen ?? "";
  byId("heat-choice").hidden = byId("heat-map").length < 2; // the scale says which one it is
}

function segmentItem(key, segment) {
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
  const shown = comparison.viewerInUse;
  const opened = viewer.series?.series_instance_uid;
  for (const button of document.querySelectorAll("button[data-series]")) {
    button.setAttribute("aria-pressed", String(button.dataset.series === opened));
  }
  for (const button of document.querySelectorAll("button[data-window]")) {
    const wanted = WINDOWS[button.dataset.window];
    const { window } = shown;
    const isOn = wanted ? window?.center === wanted.center && window?.width === wanted.width : window === null;
    button.setAttribute("aria-pressed", String(isOn));
    button.hidden = Boolean(wanted) && shown.series?.modality !== "CT"; // they are in HU
  }
  const isPressed = {
    overlay: viewer.isOverlayOn,
    heat: viewer.isHeatOn,
    invert: shown.isInverted,
    flip: shown.isFlipped,
    play: cine.isPlaying,
    length: annotations.tool === "length",
  };
  for (const [name, isOn] of Object.entries(isPressed)) {
    document.querySelector(`[data-do="${name}"]`).setAttribute("aria-pressed", String(isOn));
  }
  byId("stack").hidden = viewer.images.length < 2;
  byId("cine-tools").hidden = shown.images.length < 2;
  byId("legend").hidden = !viewer.isOverlayOn || !viewer.images.some((image) => overlays.isOn(image));
  byId("scale").hidden = !viewer.isHeatOn || !viewer.heat;
  byId("scale-label").textContent = heatMaps.map?.label ?? "";
  byId("scale-low").textContent = String(heatMaps.map?.low ?? "");
  byId("scale-high").textContent = String(heatMaps.map?.high ?? "");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { series, window: preset, do: action, show, open } = button.dataset;
  if (series || (open && !showHeatMap(open))) {
    const found = seriesOf(series ?? open);
    if (found) viewer.open(uid, found);
  }
  if (preset) inUse((one) => one.setWindow(WINDOWS[preset]));
  if (action) actions[action]();
  if (show) showImage(show, Number(button.dataset.frame) || null);
});
byId("opacity").addEventListener("input", (event) => viewer.set({ opacity: Number(event.target.value) / 100 }));
byId("heat-opacity").addEventListener("input", (event) => viewer.set({ heatOpacity: Number(event.target.value) / 100 }));
byId("rate").addEventListener("input", (event) => (event.target.dataset.isSet = "yes"));
byId("heat-map").addEventListener("change", (event) => {
  heatMaps.chosen = event.target.value;
  viewer.show(viewer.index);
});

async function bringUpToDate() {
  const response = await fetch(location.href, { headers: { Accept: "text/html", "X-Triage-Request": "background" } });
  if (!response.ok) return;
  learnServerTime(response);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const wasFlagged = byId("study-head").classList.contains("flagged");
  replaceParts(fresh);
  const verdict = document.querySelector(".verdict").innerText;
  if (!wasFlagged && byId("study-head").classList.contains("flagged")) announce(`Flagged. ${verdict}`);
  await load(fresh);
  showState();
}

drawScale(byId("scale-colours"));
handlePointer(viewer, place, annotations);
handleKeys(() => comparison.viewerInUse, {
  o: actions.overlay,
  h: actions.heat,
  j: actions.jump,
  i: actions.invert,
  f: actions.fit,
  r: actions.turn,
  x: actions.flip,
  c: actions.play,
  m: actions.length,
  w: actions.whole,
  l: actions.link,
  n: () => answers.step(1),
  p: () => answers.step(-1),
  a: () => answers.say("agree"),
  d: () => answers.say("disagree"),
  u: () => answers.say("unsure"),
  Delete: actions.clear,
});
handleReading(refresh);
handleFeedback(refresh);
handleWithdrawal(refresh);
load(document).catch((error) => viewer.say(`The study cannot be shown: ${error.message}`, true));
followChanges((change) => {
  if (uid in change.studies || change.all) refresh();
});
