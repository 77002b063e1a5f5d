/* Frames of images: fetched once, kept while there is room, the neighbours fetched ahead, and what
   the reader has scrolled past given up. */

const READERS = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, float32: Float32Array };
const KEPT_BYTES = 400e6;
const AT_ONCE = 3;

export class Frames {
  constructor(keptBytes = KEPT_BYTES) {
    this.keptBytes = keptBytes;
    this.kept = new Map(); // address -> {frame: a promise, controller, bytes}, the longest unused first
    this.bytes = 0;
    this.wanted = new Map(); // viewer -> the addresses that it needs now or next
    this.ahead = [];
    this.running = 0;
  }

  /** Return a promise of the frame `{rows, columns, samples, kind, values, window, ...}`. */
  get(image) {
    const address = addressOf(image);
    const known = this.kept.get(address);
    if (known) {
      this.kept.delete(address);
      this.kept.set(address, known);
      return known.frame;
    }
    const controller = new AbortController();
    const entry = { frame: load(address, controller.signal), controller, bytes: 0 };
    this.kept.set(address, entry);
    entry.frame.then(
      (loaded) => {
        entry.controller = null;
        entry.bytes = loaded.values.byteLength;
        this.#makeRoom(entry.bytes);
      },
      () => this.kept.get(address) === entry && this.kept.delete(address), // it may be asked for again
    );
    return entry.frame;
  }

  /** Say which images `viewer` is about to need; what is on its way for no viewer any more is given up. */
  want(viewer, images) {
    this.wanted.set(viewer, new Set(images.map(addressOf)));
    const isWanted = (address) => [...this.wanted.values()].some((addresses) => addresses.has(address));
    this.ahead = this.ahead.filter((image) => isWanted(addressOf(image)));
    for (const [address, entry] of this.kept) {
      if (!entry.controller || isWanted(address)) continue;
      this.kept.delete(address);
      entry.controller.abort();
    }
  }

  /** Fetch these of the wanted images, a few at once. */
  prefetch(images) {
    this.ahead = [...images, ...this.ahead];
    while (this.running < AT_ONCE && this.ahead.length) this.#fetchNext();
  }

  #fetchNext() {
    this.running += 1;
    this.get(this.ahead.shift())
      .catch(() => null)
      .then(() => {
        this.running -= 1;
        if (this.ahead.length) this.#fetchNext();
      });
  }

  #makeRoom(bytes) {
    this.bytes += bytes;
    for (const [address, entry] of this.kept) {
      if (this.bytes <= this.keptBytes || this.kept.size < 4) return;
      if (entry.controller) continue;
      this.kept.delete(address);
      this.bytes -= entry.bytes;
    }
  }
}

/** Return where the frame of an image is fetched. */
export function addressOf({ studyUid, seriesUid, uid, frame }) {
  return `/studies/${studyUid}/series/${seriesUid}/instances/${uid}/frames/${frame}`;
}

async function load(address, signal) {
  const response = await fetch(address, { signal }); // no header of its own: as the page has preloaded it
  if (!response.ok) throw new Error(await reason(response));
  const about = (name) => response.headers.get(`X-Image-${name}`);
  const kind = about("Kind");
  return {
    rows: Number(about("Rows")),
    columns: Number(about("Columns")),
    samples: Number(about("Samples")),
    isInverted: about("Photometric") === "MONOCHROME1",
    window: { center: Number(about("Window-Center")), width: Number(about("Window-Width")) },
    frameRate: Number(about("Frame-Rate")) || 0,
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
