/* What segmentations outline on the images: which images, and the voxels of each segment. */

import { reason } from "./pixels.js";

const KEPT = 200; // images whose outlines are kept

export class Overlays {
  constructor(studyUid) {
    this.studyUid = studyUid;
    this.list = [];
    this.byImage = new Map(); // "uid/frame" -> segmentations that lie on the image
    this.masks = new Map();
    this.hidden = new Set(); // "segmentation/segment" that the reader has switched off
  }

  /** Learn which segmentations there are; return whether that differs from before. */
  async load() {
    const response = await fetch(`/studies/${this.studyUid}/overlays`, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(await reason(response));
    const list = await response.json();
    if (JSON.stringify(list) === JSON.stringify(this.list)) return false;
    this.list = list;
    this.byImage.clear();
    this.masks.clear();
    for (const overlay of list) {
      for (const image of overlay.images) {
        const key = `${image.sop_instance_uid}/${image.frame}`;
        this.byImage.set(key, [...(this.byImage.get(key) ?? []), overlay]);
      }
    }
    return true;
  }

  isOn(image) {
    return this.byImage.has(`${image.uid}/${image.frame}`);
  }

  /** Return the image in the middle of those on which a segment shows, `{uid, frame}` or null. */
  middleOf(segmentationUid, number) {
    const overlay = this.list.find((one) => one.segmentation_uid === segmentationUid);
    const shown = overlay?.images.filter((image) => image.segments.includes(number)) ?? [];
    const middle = shown[Math.floor(shown.length / 2)];
    return middle ? { uid: middle.sop_instance_uid, frame: middle.frame } : null;
  }

  /** Return the colour that marks this image on the slider, or null. */
  markOf(image) {
    const overlay = this.byImage.get(`${image.uid}/${image.frame}`)?.[0];
    if (!overlay) return null;
    const entry = overlay.images.find((one) => one.sop_instance_uid === image.uid && one.frame === image.frame);
    const segment = overlay.segments.find((one) => one.number === entry.segments[0]) ?? overlay.segments[0];
    return segment ? `rgb(${segment.rgb.join(" ")})` : null;
  }

  /** Return a promise of the layers `{key, rgb, bits, rows, columns}` on this image. */
  layersOf(image) {
    const key = `${image.uid}/${image.frame}`;
    if (!this.masks.has(key)) {
      const wanted = (this.byImage.get(key) ?? []).map((overlay) => this.#fetch(overlay, image));
      const layers = Promise.all(wanted).then((lists) => lists.flat());
      layers.catch(() => this.masks.delete(key));
      this.masks.set(key, layers);
      if (this.masks.size > KEPT) this.masks.delete(this.masks.keys().next().value);
    }
    return this.masks.get(key);
  }

  async #fetch(overlay, image) {
    const response = await fetch(
      `/studies/${this.studyUid}/overlays/${overlay.segmentation_uid}/images/${image.uid}/frames/${image.frame}`,
      { headers: { Accept: "application/octet-stream" } },
    );
    if (!response.ok) throw new Error(await reason(response));
    const numbers = (response.headers.get("X-Overlay-Segments") ?? "").split(",").filter(Boolean).map(Number);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const each = Math.ceil((overlay.rows * overlay.columns) / 8);
    return numbers.map((number, place) => ({
      key: `${overlay.segmentation_uid}/${number}`,
      rgb: overlay.segments.find((segment) => segment.number === number)?.rgb ?? [255, 82, 82],
      bits: bytes.subarray(place * each, (place + 1) * each),
      rows: overlay.rows,
      columns: overlay.columns,
    }));
  }

  /** Paint the layers into `picture`: filled at `opacity` from 0 to 1, with a solid outline. */
  paint(layers, opacity, picture) {
    const out = new Uint32Array(picture.data.buffer);
    out.fill(0);
    for (const layer of layers) {
      if (this.hidden.has(layer.key)) continue;
      const [red, green, blue] = layer.rgb;
      const colour = (blue << 16) | (green << 8) | red;
      const fill = ((Math.round(opacity * 255) << 24) | colour) >>> 0;
      const outline = (0xe0000000 | colour) >>> 0;
      const { columns } = layer;
      const isSet = (i) => (layer.bits[i >> 3] >> (i & 7)) & 1;
      for (let i = 0; i < out.length; i += 1) {
        if (!isSet(i)) continue;
        const x = i % columns;
        const isInside =
          x > 0 && x < columns - 1 && i >= columns && i + columns < out.length &&
          isSet(i - 1) && isSet(i + 1) && isSet(i - columns) && isSet(i + columns);
        out[i] = isInside ? fill : outline;
      }
    }
  }
}
