/* Heat maps: what a model gives for each pixel, coloured over the image with an opacity of its own. */

import { reason } from "./pixels.js";

const KEPT = 24;

/** Return red, green and blue of a strength from 0 to 255: from dark violet over red to light yellow. */
export function colourOf(strength) {
  const stops = [[20, 11, 53], [120, 28, 109], [207, 68, 70], [246, 144, 36], [250, 230, 120]];
  const place = (strength / 255) * (stops.length - 1);
  const below = Math.min(stops.length - 2, Math.floor(place));
  return stops[below].map((value, i) => Math.round(value + (stops[below + 1][i] - value) * (place - below)));
}

/* The fainter, the more the image shows through; nothing at all is not coloured. */
const TABLE = Uint32Array.from({ length: 256 }, (_, strength) => {
  const [red, green, blue] = colourOf(strength);
  const alpha = Math.min(255, Math.round(strength * 1.6));
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
});

export class HeatMaps {
  constructor(studyUid) {
    this.studyUid = studyUid;
    this.list = [];
    this.chosen = null; // the UID of the map that is shown: of several on one another none could be told
    this.kept = new Map();
  }

  /** Learn which maps there are; return whether that differs from before. */
  async load() {
    const response = await fetch(`/studies/${this.studyUid}/heat-maps`, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(await reason(response));
    const list = await response.json();
    if (JSON.stringify(list) === JSON.stringify(this.list)) return false;
    this.list = list;
    this.kept.clear();
    if (!this.map) this.chosen = list.find((map) => map.images.length)?.map_uid ?? null;
    return true;
  }

  get map() {
    return this.list.find((map) => map.map_uid === this.chosen);
  }

  isOn(image) {
    return Boolean(this.map?.images.some((one) => one.sop_instance_uid === image.uid && one.frame === image.frame));
  }

  /**
   * Return a promise of the chosen map on this image, `{rows, columns, values, coversImage}`, or null.
   * What covers the image is stretched over it; all else has its pixels.
   */
  async on(image) {
    if (!this.isOn(image)) return null;
    const address = `/studies/${this.studyUid}/heat-maps/${this.chosen}/images/${image.uid}/frames/${image.frame}`;
    if (!this.kept.has(address)) {
      const layer = fetchLayer(address, this.map.covers_image);
      layer.catch(() => this.kept.delete(address));
      this.kept.set(address, layer);
      if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    }
    return this.kept.get(address);
  }
}

async function fetchLayer(address, coversImage) {
  const response = await fetch(address, { headers: { Accept: "application/octet-stream" } });
  if (!response.ok) throw new Error(await reason(response));
  return {
    rows: Number(response.headers.get("X-Image-Rows")),
    columns: Number(response.headers.get("X-Image-Columns")),
    values: new Uint8Array(await response.arrayBuffer()),
    coversImage,
  };
}

/** Paint a heat map into `picture`, an ImageData of its size. */
export function paintHeat({ values }, picture) {
  const out = new Uint32Array(picture.data.buffer);
  for (let i = 0; i < out.length; i += 1) out[i] = TABLE[values[i]];
}

/** Draw the colour scale into a canvas, its low end on the left. */
export function drawScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x += 1) {
    context.fillStyle = `rgb(${colourOf((x / (canvas.width - 1)) * 255).join(" ")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}
