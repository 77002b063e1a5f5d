/* The image stack: one canvas, scrolled, windowed, zoomed, with what the AI outlines on top. */

import { edgesOf, imageToCanvas } from "./geometry.js";
import { paintHeat } from "./heat.js";
import { addressOf, paint } from "./pixels.js";

export const WINDOWS = {
  default: null,
  brain: { center: 40, width: 80 },
  bone: { center: 480, width: 2500 },
  lung: { center: -600, width: 1500 },
};
const PREFETCHED = 8;

/** Return the elements of a pane, whose ids begin with `prefix`. */
export function placeOf(prefix) {
  const byId = (id) => document.getElementById(prefix + id);
  return {
    viewport: byId("viewport"),
    canvas: byId("canvas"),
    first: byId("first-picture"),
    marks: byId("marks"),
    slider: byId("slider"),
    message: byId("viewer-message"),
    corners: {
      image: byId("corner-image"),
      series: byId("corner-series"),
      value: byId("corner-value"),
      window: byId("corner-window"),
    },
    edges: Object.fromEntries(["top", "right", "bottom", "left"].map((edge) => [edge, byId(`edge-${edge}`)])),
  };
}

export class Viewer {
  /**
   * `place` names the elements: viewport, canvas, marks, slider, message, the corners image, series,
   * value and window, the edges, and `first`, the picture that the page came with. `onChange` is called after every change of series, image or setting,
   * `annotations` draws over each image.
   */
  constructor({ frames, overlays, heatMaps, place, annotations, onChange }) {
    Object.assign(this, { frames, overlays, heatMaps, place, annotations, onChange });
    this.first = place.first; // stands with its corners and letters until the canvas is drawn
    this.followers = new Set(); // called with every new index
    this.series = null;
    this.images = [];
    this.index = 0;
    this.window = null; // null: the image's own
    this.isInverted = false;
    this.opacity = 0.35;
    this.isOverlayOn = true;
    this.heatOpacity = 0.5;
    this.isHeatOn = true;
    this.frame = null;
    this.layers = [];
    this.heat = null;
    this.drawn = 0;
    this.picture = document.createElement("canvas");
    this.overlay = document.createElement("canvas");
    this.heatPicture = document.createElement("canvas");
    this.#resetView();
    new ResizeObserver(() => this.draw()).observe(place.viewport);
    new ResizeObserver(() => this.drawMarks()).observe(place.marks); // it appears with the slider
  }

  get image() {
    return this.images[this.index];
  }

  #resetView() {
    this.zoom = 1;
    this.pan = { x: 0, y: 0 };
    this.quarters = 0;
    this.isFlipped = false;
  }

  /**
   * Show a series of the study, at `wanted` (`{uid, frame}`, the frame optional) if it is given,
   * else where it was or in the middle.
   */
  open(studyUid, series, wanted = null) {
    const isSame = this.series?.series_instance_uid === series.series_instance_uid;
    const target = wanted ?? (isSame ? this.image : null);
    this.series = series;
    this.images = imagesOf(studyUid, series);
    const found = this.images.findIndex(
      (image) => image.uid === target?.uid && (!target.frame || image.frame === target.frame),
    );
    if (!isSame) {
      this.window = null;
      this.#resetView();
    }
    this.place.slider.max = String(this.images.length);
    this.place.slider.disabled = this.images.length < 2;
    this.drawMarks();
    return this.show(found >= 0 ? found : isSame ? this.index : Math.floor(this.images.length / 2));
  }

  /** Show the image at `index`, or the nearest that there is. */
  async show(index) {
    if (!this.images.length) return;
    this.index = Math.min(this.images.length - 1, Math.max(0, index));
    const { image } = this;
    this.place.slider.value = String(this.index + 1);
    this.place.slider.setAttribute("aria-valuetext", `image ${this.index + 1} of ${this.images.length}`);
    if (this.first && !isPictureOf(this.first, image)) this.#dropFirst();
    for (const follow of this.followers) follow(this);
    this.frames.want(this, [image, ...this.#neighbours()]);
    const wait = setTimeout(() => this.say("Loading image…"), 250);
    try {
      const failed = (error) => error;
      const [frame, layers, heat] = await Promise.all([
        this.frames.get(image),
        this.overlays.isOn(image) ? this.overlays.layersOf(image).catch(failed) : [],
        this.heatMaps.on(image).catch(failed),
      ]);
      if (image !== this.image) return; // the reader has scrolled on
      this.#take(frame, layers, heat);
    } catch (error) {
      if (image !== this.image || error.name === "AbortError") return;
      this.frame = this.heat = null;
      this.layers = [];
      this.say(`This image cannot be shown: ${error.message}`, true);
      this.draw();
    } finally {
      clearTimeout(wait);
    }
    if (image === this.image) this.#prefetch();
  }

  #take(frame, layers, heat) {
    const fits = ({ rows, columns }) => rows === frame.rows && columns === frame.columns;
    const failed = [layers, heat].find((one) => one instanceof Error);
    const found = layers instanceof Error ? [] : layers;
    const wrong = found.find((layer) => !fits(layer));
    this.frame = frame;
    this.layers = found.filter(fits);
    this.heat = heat && !(heat instanceof Error) && (heat.coversImage || fits(heat)) ? heat : null;
    if (failed) this.say(`The AI overlay cannot be shown: ${failed.message}`);
    else this.say(wrong ? `The AI overlay of ${wrong.columns} × ${wrong.rows} does not fit this image.` : "");
    this.repaint();
  }

  /** Return the images around this one, the nearest first. */
  #neighbours() {
    const order = [];
    for (let step = 1; step <= PREFETCHED; step += 1) {
      for (const index of [this.index + step, this.index - step]) {
        if (this.images[index]) order.push(this.images[index]);
      }
    }
    return order;
  }

  #prefetch() {
    const order = this.#neighbours();
    this.frames.prefetch(order);
    for (const image of order.slice(0, 4)) {
      if (this.overlays.isOn(image)) this.overlays.layersOf(image).catch(() => null);
      this.heatMaps.on(image).catch(() => null);
    }
  }

  say(text, isError = false) {
    if (isError && this.first) this.#dropFirst();
    this.place.message.textContent = text;
    this.place.message.hidden = !text;
    this.place.message.classList.toggle("error", isError);
  }

  /** Return the window in force: the reader's, or that of the image. */
  get shownWindow() {
    return this.window ?? this.frame?.window ?? { center: 127.5, width: 255 };
  }

  /** Compute picture and overlays anew, then draw. */
  repaint() {
    const { frame } = this;
    if (frame) {
      fill(this.picture, frame, (picture) => paint(frame, this.shownWindow, this.isInverted, picture));
      fill(this.overlay, frame, (picture) => this.overlays.paint(this.layers, this.opacity, picture));
      if (this.heat) fill(this.heatPicture, this.heat, (picture) => paintHeat(this.heat, picture));
    }
    this.draw();
  }

  /** Take away the picture that the page came with: it is not that image, or it cannot be shown. */
  #dropFirst() {
    this.#removeFirst();
    this.draw();
  }

  #removeFirst() {
    this.first?.remove();
    this.first = null;
  }

  draw() {
    if (this.first && !this.frame) return void this.onChange();
    const { canvas, viewport } = this.place;
    const ratio = devicePixelRatio || 1;
    const width = Math.round(viewport.clientWidth * ratio);
    const height = Math.round(viewport.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (this.frame) this.#drawImage(context);
    if (this.frame) this.#removeFirst(); // in the same picture of the screen
    if (this.frame && !this.drawn) performance.mark("first-image");
    if (this.frame) this.drawn += 1;
    canvas.dataset.drawn = this.frame ? String(this.drawn) : "";
    this.#writeCorners();
    this.#writeEdges();
    this.onChange();
  }

  #drawImage(context) {
    const matrix = this.matrix();
    context.setTransform(matrix);
    context.imageSmoothingEnabled = Math.hypot(matrix.a, matrix.b) < 6; // far in, one wants to see the pixels
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, 0, 0);
    if (this.isHeatOn && this.heat) {
      context.globalAlpha = this.heatOpacity;
      context.drawImage(this.heatPicture, 0, 0, this.frame.columns, this.frame.rows);
      context.globalAlpha = 1;
    }
    if (this.isOverlayOn && this.layers.length) context.drawImage(this.overlay, 0, 0);
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.annotations?.draw(context, matrix, this.image);
  }

  /** Return the matrix from pixels of the image to pixels of the canvas. */
  matrix() {
    const ratio = devicePixelRatio || 1;
    const pan = { x: this.pan.x * ratio, y: this.pan.y * ratio };
    return imageToCanvas(this.place.canvas, this.frame, this.image?.spacing, { ...this, pan });
  }

  /** Return the point of the image, [column, row], at a point of the viewport in CSS pixels. */
  imagePoint(x, y) {
    const ratio = devicePixelRatio || 1;
    const point = this.matrix().inverse().transformPoint({ x: x * ratio, y: y * ratio });
    return [point.x, point.y];
  }

  #writeCorners() {
    const { corners, viewport } = this.place;
    const count = this.images.length;
    const { center, width } = this.shownWindow;
    const name = this.series?.description || "Series";
    const isGrey = this.frame && this.frame.samples === 1;
    const turned = [this.quarters ? `Turned ${this.quarters * 90}°` : "", this.isFlipped ? "Mirrored" : ""];
    corners.series.textContent = this.series ? `${this.series.modality} ${name}` : "";
    corners.image.textContent = count ? `Image ${this.index + 1} / ${count}` : "";
    corners.window.textContent = [
      isGrey ? `W ${round(width)} L ${round(center)}` : "",
      this.zoom === 1 ? "" : `Zoom ${Math.round(this.zoom * 100)} %`,
      ...turned,
    ].filter(Boolean).join("\n");
    viewport.setAttribute("aria-label", count ? `${name}, image ${this.index + 1} of ${count}` : "Image stack");
  }

  /** Say which side of the patient is where, as the image is turned and mirrored. */
  #writeEdges() {
    const directions = this.frame ? this.image?.directions : null;
    const letters = edgesOf(directions ? this.matrix() : null, directions);
    for (const [edge, element] of Object.entries(this.place.edges)) element.textContent = letters[edge];
  }

  /** Mark on the strip above the slider which images have something on them. */
  drawMarks() {
    const { marks } = this.place;
    const width = (marks.width = Math.max(1, Math.round(marks.clientWidth * (devicePixelRatio || 1))));
    marks.height = 5;
    const context = marks.getContext("2d");
    const each = width / Math.max(1, this.images.length);
    this.images.forEach((image, index) => {
      const colour = this.overlays.markOf(image);
      if (!colour) return;
      context.fillStyle = colour;
      context.fillRect(index * each, 0, Math.max(2, each), 5);
    });
  }

  setWindow(window) {
    this.window = window && { center: window.center, width: Math.max(1, window.width) };
    this.repaint();
  }

  /** Change settings that need new pictures: opacity, isOverlayOn, heatOpacity, isHeatOn, isInverted. */
  set(settings) {
    Object.assign(this, settings);
    this.repaint();
  }

  /** Turn a quarter clockwise, as it is seen. */
  turn() {
    this.quarters = (this.quarters + (this.isFlipped ? 3 : 1)) % 4;
    this.draw();
  }

  /** Mirror left to right, as it is seen. */
  flip() {
    this.isFlipped = !this.isFlipped;
    this.draw();
  }

  /** Zoom by `factor` about a point of the viewport in CSS pixels, by default its middle. */
  zoomBy(factor, x = this.place.viewport.clientWidth / 2, y = this.place.viewport.clientHeight / 2) {
    const zoom = Math.min(20, Math.max(0.25, this.zoom * factor));
    const ratio = zoom / this.zoom;
    const middle = { x: this.place.viewport.clientWidth / 2, y: this.place.viewport.clientHeight / 2 };
    this.pan = {
      x: x - middle.x - (x - middle.x - this.pan.x) * ratio,
      y: y - middle.y - (y - middle.y - this.pan.y) * ratio,
    };
    this.zoom = zoom;
    this.draw();
  }

  panBy(x, y) {
    this.pan = { x: this.pan.x + x, y: this.pan.y + y };
    this.draw();
  }

  /** Show the whole image, upright and as it was stored. */
  fit() {
    this.#resetView();
    this.draw();
  }

  /** Go to the next image that has something on it, round the end. */
  jumpToNext() {
    const count = this.images.length;
    const isOn = (image) => this.overlays.isOn(image) || this.heatMaps.isOn(image);
    for (let step = 1; step <= count; step += 1) {
      const index = (this.index + step) % count;
      const isStart = !isOn(this.images[(index + count - 1) % count]) || index === 0;
      if (isOn(this.images[index]) && (isStart || step === 1)) return this.show(index);
    }
    return Promise.resolve();
  }

  /** Return the value under a point of the viewport, in words, or "". */
  valueAt(x, y) {
    if (!this.frame) return "";
    const [column, row] = this.imagePoint(x, y).map(Math.floor);
    const { rows, columns, samples, values } = this.frame;
    if (column < 0 || row < 0 || column >= columns || row >= rows || samples !== 1) return "";
    const unit = this.series.modality === "CT" ? " HU" : "";
    return `${round(values[row * columns + column])}${unit} at ${column}, ${row}`;
  }
}

function imagesOf(studyUid, series) {
  return series.images.flatMap((image) =>
    Array.from({ length: image.frames }, (_, frame) => ({
      studyUid,
      seriesUid: series.series_instance_uid,
      uid: image.sop_instance_uid,
      frame: frame + 1,
      spacing: image.pixel_spacing_mm,
      isAtDetector: image.is_spacing_at_detector,
      depth: image.depths_mm[frame] ?? null,
      directions: image.directions,
    })),
  );
}

function isPictureOf(first, image) {
  return first.querySelector("image").getAttribute("href") === `${addressOf(image)}/picture`;
}

function fill(canvas, { columns, rows }, work) {
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  work(picture);
  context.putImageData(picture, 0, 0);
}

function round(value) {
  return Math.abs(value) >= 10 || Number.isInteger(value) ? Math.round(value) : Number(value.toPrecision(3));
}
