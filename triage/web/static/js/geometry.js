/* Where the image lies on the canvas, and how stacks lie to one another in the patient. */

const PARALLEL = 0.996; // cosine: 5 degrees

/**
 * Return the matrix from pixels of the image to pixels of the canvas. It is turned by quarters
 * clockwise, then mirrored left to right if `isFlipped`, and fills the canvas at a zoom of 1.
 */
export function imageToCanvas(canvas, frame, spacing, { zoom, pan, quarters, isFlipped }) {
  const [rowMm, columnMm] = spacing ?? [1, 1];
  const aspect = rowMm / columnMm;
  const [width, height] = [frame.columns, frame.rows * aspect];
  const isLying = quarters % 2 !== 0;
  const fit = Math.min(canvas.width / (isLying ? height : width), canvas.height / (isLying ? width : height));
  const scale = fit * zoom;
  return new DOMMatrix()
    .translateSelf(canvas.width / 2 + pan.x, canvas.height / 2 + pan.y)
    .scaleSelf(isFlipped ? -1 : 1, 1)
    .rotateSelf(quarters * 90)
    .scaleSelf(scale, scale * aspect)
    .translateSelf(-frame.columns / 2, -frame.rows / 2);
}

const OPPOSITE = { L: "R", R: "L", P: "A", A: "P", H: "F", F: "H" };

/**
 * Return which side of the patient is at each edge, `{top, right, bottom, left}` in letters. `matrix`
 * is that to the canvas, `directions` are those of the image: to where its columns and its rows
 * count up (DICOM PS3.3 C.7.6.1.1.1); without them there are no letters.
 */
export function edgesOf(matrix, directions) {
  if (!directions) return { top: "", right: "", bottom: "", left: "" };
  const [right, bottom] = directions;
  // Turned by quarters: a column runs either across the canvas or down it.
  const isLying = Math.abs(matrix.b) > Math.abs(matrix.a);
  const across = isLying ? [matrix.c, bottom] : [matrix.a, right];
  const down = isLying ? [matrix.b, right] : [matrix.d, bottom];
  const ahead = ([sign, letters]) => (sign > 0 ? letters : opposite(letters));
  const behind = ([sign, letters]) => (sign > 0 ? opposite(letters) : letters);
  return { top: behind(down), right: ahead(across), bottom: ahead(down), left: behind(across) };
}

function opposite(letters) {
  return [...letters].map((letter) => OPPOSITE[letter]).join("");
}

/** Return the length between two points of an image in words: in mm where that can be known. */
export function lengthInWords([x0, y0], [x1, y1], image) {
  const [rowMm, columnMm] = image.spacing ?? [1, 1];
  const length = Math.hypot((x1 - x0) * columnMm, (y1 - y0) * rowMm);
  if (!image.spacing) return `${length.toFixed(0)} px`;
  return `${length.toFixed(1)} mm${image.isAtDetector ? " at the detector" : ""}`;
}

/**
 * Return by what two stacks can be scrolled together: "position" in one frame of reference,
 * "distance" along parallel normals, or "number" of the image; `sign` is -1 where they run
 * against each other.
 */
export function relationOf(one, other) {
  const cosine = one.series?.normal && other.series?.normal ? dot(one.series.normal, other.series.normal) : 0;
  const haveDepths = [one, other].every(({ images }) => images.length > 1 && images.every((i) => i.depth !== null));
  if (!haveDepths || Math.abs(cosine) < PARALLEL) return { by: "number", sign: 1 };
  const frame = one.series.frame_of_reference_uid;
  const isSame = Boolean(frame) && frame === other.series.frame_of_reference_uid;
  return { by: isSame ? "position" : "distance", sign: Math.sign(cosine) };
}

/** Return the index of the image that lies nearest to `depth`. */
export function nearest(images, depth) {
  let best = 0;
  images.forEach((image, index) => {
    if (Math.abs(image.depth - depth) < Math.abs(images[best].depth - depth)) best = index;
  });
  return best;
}

function dot(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}
