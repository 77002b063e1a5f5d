/* How hands move the stack: wheel, drag, keys, touch. */

import { WINDOWS } from "./viewer.js";

const PIXELS_AN_IMAGE = 8;

/** Let wheel, drag and slider move one viewer. `annotations` may take the drag for a tool. */
export function handlePointer(viewer, place, annotations) {
  handleWheel(viewer, place.viewport);
  handleDrag(viewer, place.viewport, annotations);
  showValues(viewer, place);
  place.slider.addEventListener("input", () => viewer.show(Number(place.slider.value) - 1));
  place.viewport.addEventListener("contextmenu", (event) => event.preventDefault());
  place.viewport.addEventListener("dblclick", () => !annotations.tool && viewer.fit());
}

function handleWheel(viewer, viewport) {
  let rest = 0;
  viewport.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) {
        const box = viewport.getBoundingClientRect();
        viewer.zoomBy(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
        return;
      }
      // A wheel's notch is one image; a touchpad's many small steps add up to one.
      const delta = event.deltaMode === 1 ? event.deltaY * 40 : event.deltaY;
      rest = Math.sign(delta) === Math.sign(rest) ? rest + delta : delta;
      const steps = Math.abs(delta) >= 50 ? Math.sign(delta) : Math.trunc(rest / 40);
      if (steps) {
        rest = 0;
        viewer.show(viewer.index + steps);
      }
    },
    { passive: false },
  );
}

function handleDrag(viewer, viewport, annotations) {
  let drag = null;
  const pointOf = (event) => {
    const box = viewport.getBoundingClientRect();
    return viewer.imagePoint(event.clientX - box.left, event.clientY - box.top);
  };
  viewport.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".legend")) return;
    viewport.focus({ preventScroll: true });
    viewport.setPointerCapture(event.pointerId);
    const kind = kindOf(event);
    const isTaken = kind === "scroll" && annotations.begin(viewer, viewer.frame && pointOf(event));
    drag = { kind: isTaken ? "draw" : kind, x: event.clientX, y: event.clientY, rest: 0 };
  });
  viewport.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    [drag.x, drag.y] = [event.clientX, event.clientY];
    if (drag.kind === "draw") annotations.move(viewer, pointOf(event));
    if (drag.kind === "pan") viewer.panBy(dx, dy);
    if (drag.kind === "window") changeWindow(viewer, dx, dy);
    if (drag.kind === "scroll") {
      drag.rest += dy;
      const steps = Math.trunc(drag.rest / PIXELS_AN_IMAGE);
      drag.rest -= steps * PIXELS_AN_IMAGE;
      if (steps) viewer.show(viewer.index + steps);
    }
  });
  viewport.addEventListener("pointerup", (event) => {
    if (drag?.kind === "draw") annotations.end(viewer, pointOf(event));
    drag = null;
  });
  viewport.addEventListener("pointercancel", () => (drag = null));
}

function showValues(viewer, { viewport, corners }) {
  viewport.addEventListener("pointermove", (event) => {
    const box = viewport.getBoundingClientRect();
    corners.value.textContent = viewer.valueAt(event.clientX - box.left, event.clientY - box.top);
  });
  viewport.addEventListener("pointerleave", () => (corners.value.textContent = ""));
}

function kindOf(event) {
  if (event.button === 1 || event.ctrlKey || event.metaKey) return "pan";
  return event.button === 2 || event.shiftKey ? "window" : "scroll";
}

function changeWindow(viewer, dx, dy) {
  const { center, width } = viewer.shownWindow;
  const pace = Math.max(width / 300, 0.002);
  viewer.setWindow({ center: center + dy * pace, width: width + dx * pace });
}

function setPreset(viewer, name) {
  if (viewer.series?.modality === "CT") viewer.setWindow(WINDOWS[name]); // they are in HU
}

/** Let keys move the viewer in use; `others` are further keys with what they do. */
export function handleKeys(viewerInUse, others) {
  const on = (act) => () => act(viewerInUse());
  const keys = {
    ArrowUp: on((viewer) => viewer.show(viewer.index - 1)),
    ArrowDown: on((viewer) => viewer.show(viewer.index + 1)),
    ArrowLeft: on((viewer) => viewer.show(viewer.index - 1)),
    ArrowRight: on((viewer) => viewer.show(viewer.index + 1)),
    PageUp: on((viewer) => viewer.show(viewer.index - 10)),
    PageDown: on((viewer) => viewer.show(viewer.index + 10)),
    Home: on((viewer) => viewer.show(0)),
    End: on((viewer) => viewer.show(Infinity)),
    0: on((viewer) => viewer.setWindow(null)),
    1: on((viewer) => setPreset(viewer, "brain")),
    2: on((viewer) => setPreset(viewer, "bone")),
    3: on((viewer) => setPreset(viewer, "lung")),
    "+": on((viewer) => viewer.zoomBy(1.25)),
    "=": on((viewer) => viewer.zoomBy(1.25)),
    "-": on((viewer) => viewer.zoomBy(0.8)),
    ...others,
  };
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest('select, textarea, input:not([type="range"], [type="checkbox"], [type="radio"])');
    // Arrows and page keys belong to the slider or the panel that has the focus; letters do not.
    const hasOwnScroll = event.target.closest('.panel, .series, input[type="range"], input[type="radio"]');
    const scrolls = event.key.length > 1;
    if (isTyping || (hasOwnScroll && scrolls) || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
