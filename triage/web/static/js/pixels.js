/* Frames of a study: fetched once, kept while there is room, and the neighbours fetched ahead. */

const READERS = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, float32: Float32Array };
const KEPT_BYTES = 400e6;
const AT_ONCE = 3;

export class Frames {
  constructor(studyUid) {
    this.studyUid = studyUid;
    this.kept = new Map(); // address -> Promise of a frame, the longest unused first
    this.bytes = 0;
    this.ahead = [];
    this.running = 0;
  }

  /** Return a promise of the frame `{rows, columns, samples, kind, values, window, ...}`. */
  get(seriesUid, image) {
    const address = `/studies/${this.studyUid}/series/${seriesUid}/instances/${image.uid}/frames/${image.frame}`;
    const known = this.kept.get(address);
    if (known) {
      this.kept.delete(address);
      this.kept.set(address, known);
      return known;
    }
    const frame = load(address);
    this.kept.set(address, frame);
    frame.then(
      (loaded) => this.#makeRoom(loaded.values.byteLength),
      () => this.kept.delete(address), // what failed may be asked for again
    );
    return frame;
  }

  /** Fetch these frames when nothing more urgent is going on; earlier wishes are forgotten. */
  prefetch(seriesUid, images) {
    this.ahead = images.map((image) => [seriesUid, image]);
    while (this.running < AT_ONCE && this.ahead.length) this.#fetchNext();
  }

  #fetchNext() {
    const [seriesUid, image] = this.ahead.shift();
    this.running += 1;
    this.get(seriesUid, image)
      .catch(() => null)
      .then(() => {
        this.running -= 1;
        if (this.ahead.length) this.#fetchNext();
      });
  }

  #makeRoom(bytes) {
    this.bytes += bytes;
    for (const [address, frame] of this.kept) {
      if (this.bytes <= KEPT_BYTES || this.kept.size < 4) return;
      this.kept.delete(address);
      frame.then((old) => (this.bytes -= old.values.byteLength), () => null);
    }
  }
}

async function load(address) {
  const response = await fetch(address, { headers: { Accept: "application/octet-stream" } });
  if (!response.ok) throw new Error(await reason(response));
  const about = (name) => response.headers.get(`X-Image-${name}`);
  const kind = about("Kind");
  return {
    rows: Number(about("Rows")),
    columns: Number(about("Columns")),
    samples: Number(about("Samples")),
    isInverted: about("Photometric") === "MONOCHROME1",
    window: { center: Number(about("Window-Center")), width: Number(about("Window-Width")) },
    kind,
    values: new READERS[kind](await response.arrayBuffer()),
  };
}

export async function reason(response) {
  const said = await response.json().catch(() => ({}));
  return said.detail ?? `the server answered ${response.status}`;
}

/**
 * Draw `frame` into `picture`, an ImageData of its size, through the window (DICOM PS3.3
 * C.11.2.1.2.1, linear). What MONOCHROME1 shows dark for high values stays so.
 */
export function paint(frame, window, isInverted, picture) {
  const out = new Uint32Array(picture.data.buffer);
  if (frame.samples === 3) return paintColour(frame.values, out, isInverted);
  const grey = lookup(frame, window, isInverted !== frame.isInverted);
  const { values } = frame;
  for (let i = 0; i < out.length; i += 1) out[i] = grey(values[i]);
  return picture;
}

function paintColour(rgb, out, isInverted) {
  const flip = isInverted ? 0xffffff : 0;
  for (let i = 0, j = 0; i < out.length; i += 1, j += 3) {
    out[i] = (0xff000000 | (((rgb[j + 2] << 16) | (rgb[j + 1] << 8) | rgb[j]) ^ flip)) >>> 0;
  }
}

function lookup(frame, { center, width }, isInverted) {
  const span = Math.max(width - 1, 1e-6);
  const low = center - 0.5 - span / 2;
  const shade = (value) => {
    let level = Math.min(255, Math.max(0, Math.round(((value - low) / span) * 255)));
    if (isInverted) level = 255 - level;
    return (0xff000000 | (level << 16) | (level << 8) | level) >>> 0;
  };
  if (frame.kind === "float32") return shade;
  const offset = frame.kind === "int16" ? 32768 : 0;
  const table = new Uint32Array(frame.kind === "uint8" ? 256 : 65536);
  for (let i = 0; i < table.length; i += 1) table[i] = shade(i - offset);
  return (value) => table[value + offset];
}
