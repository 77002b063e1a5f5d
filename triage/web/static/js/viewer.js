/* The image stack: one canvas, scrolled, windowed, zoomed, with what the AI outlines on top. */

import { Frames, paint } from "./pixels.js";

export const WINDOWS = {
  default: null,
  brain: { center: 40, width: 80 },
  bone: { center: 480, width: 2500 },
  lung: { center: -600, width: 1500 },
};
const PREFETCHED = 8;

export class Viewer {
  /**
   * `place` names the elements: viewport, canvas, marks, slider, message, and the corners image,
   * series and window. `onChange` is called after every change of series, image or setting.
   */
  constructor(studyUid, overlays, place, onChange) {
    this.frames = new Frames(studyUid);
    this.overlays = overlays;
    this.place = place;
    this.onChange = onChange;
    this.series = null;
    this.images = [];
    this.index = 0;
    this.window = null; // null: the image's own
    this.isInverted = false;
    this.zoom = 1;
    this.pan = { x: 0, y: 0 };
    this.opacity = 0.35;
    this.isOverlayOn = true;
    this.frame = null;
    this.layers = [];
    this.drawn = 0;
    this.picture = document.createElement("canvas");
    this.overlay = document.createElement("canvas");
    new ResizeObserver(() => this.draw()).observe(place.viewport);
    new ResizeObserver(() => this.drawMarks()).observe(place.marks); // it appears with the slider
  }

  get image() {
    return this.images[this.index];
  }

  /** Show a series, at the image of that UID if it is given, else where it was or in the middle. */
  open(series, imageUid = null) {
    const isSame = this.series?.series_instance_uid === series.series_instance_uid;
    const at = this.image;
    this.series = series;
    this.images = series.images.flatMap((image) =>
      Array.from({ length: image.frames }, (_, frame) => ({
        uid: image.sop_instance_uid,
        frame: frame + 1,
        spacing: image.pixel_spacing_mm,
      })),
    );
    const wanted = imageUid ?? (isSame ? at?.uid : null);
    const found = this.images.findIndex(
      (image) => image.uid === wanted && (imageUid !== null || image.frame === at?.frame),
    );
    if (!isSame) {
      this.window = null;
      this.zoom = 1;
      this.pan = { x: 0, y: 0 };
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
    const { image, series } = this;
    this.place.slider.value = String(this.index + 1);
    this.place.slider.setAttribute("aria-valuetext", `image ${this.index + 1} of ${this.images.length}`);
    const wait = setTimeout(() => this.say("Loading image…"), 250);
    try {
      const [frame, layers] = await Promise.all([
        this.frames.get(series.series_instance_uid, image),
        this.overlays.isOn(image) ? this.overlays.layersOf(image).catch((error) => error) : [],
      ]);
      if (image !== this.image) return; // the reader has scrolled on
      this.frame = frame;
      this.layers = layers instanceof Error ? [] : layers;
      this.say(layers instanceof Error ? `The AI overlay cannot be shown: ${layers.message}` : this.#misfit());
      this.repaint();
    } catch (error) {
      if (image !== this.image) return;
      this.frame = null;
      this.layers = [];
      this.draw();
      this.say(`This image cannot be shown: ${error.message}`, true);
    } finally {
      clearTimeout(wait);
    }
    if (image === this.image) this.#prefetch();
  }

  #misfit() {
    const { rows, columns } = this.frame;
    const wrong = this.layers.filter((layer) => layer.rows !== rows || layer.columns !== columns);
    this.layers = this.layers.filter((layer) => !wrong.includes(layer));
    return wrong.length ? `The AI overlay of ${wrong[0].columns} × ${wrong[0].rows} does not fit this image.` : "";
  }

  #prefetch() {
    const order = [];
    for (let step = 1; step <= PREFETCHED; step += 1) {
      for (const index of [this.index + step, this.index - step]) {
        if (this.images[index]) order.push(this.images[index]);
      }
    }
    this.frames.prefetch(this.series.series_instance_uid, order);
    order.slice(0, 4).filter((image) => this.overlays.isOn(image)).forEach((image) => {
      this.overlays.layersOf(image).catch(() => null);
    });
  }

  say(text, isError = false) {
    this.place.message.textContent = text;
    this.place.message.hidden = !text;
    this.place.message.classList.toggle("error", isError);
  }

  /** Return the window in force: the reader's, or that of the image. */
  get shownWindow() {
    return this.window ?? this.frame?.window ?? { center: 127.5, width: 255 };
  }

  /** Compute picture and overlay anew, then draw. */
  repaint() {
    const { frame } = this;
    if (frame) {
      fill(this.picture, frame, (picture) => paint(frame, this.shownWindow, this.isInverted, picture));
      fill(this.overlay, frame, (picture) => this.overlays.paint(this.layers, this.opacity, picture));
    }
    this.draw();
  }

  draw() {
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
    if (this.frame) {
      const { scaleX, scaleY, left, top } = this.#geometry();
      context.setTransform(scaleX, 0, 0, scaleY, left, top);
      context.imageSmoothingEnabled = scaleX < 6; // far in, one wants to see the pixels
      context.imageSmoothingQuality = "high";
      context.drawImage(this.picture, 0, 0);
      if (this.isOverlayOn && this.layers.length) context.drawImage(this.overlay, 0, 0);
    }
    if (this.frame && !this.drawn) performance.mark("first-image");
    if (this.frame) this.drawn += 1;
    canvas.dataset.drawn = this.frame ? String(this.drawn) : "";
    this.#writeCorners();
    this.onChange();
  }

  #geometry() {
    const { canvas } = this.place;
    const [rowMm, columnMm] = this.image?.spacing ?? [1, 1];
    const aspect = rowMm / columnMm;
    const { rows, columns } = this.frame;
    const fit = Math.min(canvas.width / columns, canvas.height / (rows * aspect));
    const scaleX = fit * this.zoom;
    const scaleY = scaleX * aspect;
    const ratio = devicePixelRatio || 1;
    return {
      scaleX,
      scaleY,
      left: (canvas.width - columns * scaleX) / 2 + this.pan.x * ratio,
      top: (canvas.height - rows * scaleY) / 2 + this.pan.y * ratio,
    };
  }

  #writeCorners() {
    const { corners, viewport } = this.place;
    const count = this.images.length;
    const { center, width } = this.shownWindow;
    const name = this.series?.description || "Series";
    corners.series.textContent = this.series ? `${this.series.modality} ${name}` : "";
    corners.image.textContent = count ? `Image ${this.index + 1} / ${count}` : "";
    const isGrey = this.frame && this.frame.samples === 1;
    const zoom = this.zoom === 1 ? "" : `\nZoom ${Math.round(this.zoom * 100)} %`;
    corners.window.textContent = isGrey ? `W ${round(width)} L ${round(center)}${zoom}` : zoom.trim();
    viewport.setAttribute("aria-label", count ? `${name}, image ${this.index + 1} of ${count}` : "Image stack");
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

  setOpacity(opacity) {
    this.opacity = opacity;
    this.repaint();
  }

  toggleOverlay() {
    this.isOverlayOn = !this.isOverlayOn;
    this.draw();
  }

  toggleInvert() {
    this.isInverted = !this.isInverted;
    this.repaint();
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

  fit() {
    this.zoom = 1;
    this.pan = { x: 0, y: 0 };
    this.draw();
  }

  /** Go to the next image that has something on it, round the end. */
  jumpToNext() {
    const count = this.images.length;
    for (let step = 1; step <= count; step += 1) {
      const index = (this.index + step) % count;
      const isStart = !this.overlays.isOn(this.images[(index + count - 1) % count]) || index === 0;
      if (this.overlays.isOn(this.images[index]) && (isStart || step === 1)) return this.show(index);
    }
    return Promise.resolve();
  }

  /** Return the value under a point of the viewport, in words, or "". */
  valueAt(x, y) {
    if (!this.frame) return "";
    const ratio = devicePixelRatio || 1;
    const { scaleX, scaleY, left, top } = this.#geometry();
    const column = Math.floor((x * ratio - left) / scaleX);
    const row = Math.floor((y * ratio - top) / scaleY);
    const { rows, columns, samples, values } = this.frame;
    if (column < 0 || row < 0 || column >= columns || row >= rows || samples !== 1) return "";
    const unit = this.series.modality === "CT" ? " HU" : "";
    return `${round(values[row * columns + column])}${unit} at ${column}, ${row}`;
  }
}

function fill(canvas, frame, work) {
  if (canvas.width !== frame.columns || canvas.height !== frame.rows) {
    canvas.width = frame.columns;
    canvas.height = frame.rows;
  }
  const context = canvas.getContext("2d");
  const picture = context.createImageData(frame.columns, frame.rows);
  work(picture);
  context.putImageData(picture, 0, 0);
}

function round(value) {
  return Math.abs(value) >= 10 || Number.isInteger(value) ? Math.round(value) : Number(value.toPrecision(3));
}
