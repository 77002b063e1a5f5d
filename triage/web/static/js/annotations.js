/* What the reader draws on images: lengths, and where a missed finding lies. Nothing of it is kept
   but what is reported. Points are [column, row] of the image, from its upper left corner. */

import { lengthInWords } from "./geometry.js";

const LENGTH_COLOUR = "#ffe066";
const MARK_COLOUR = "#ff9f43";
const IS_A_BOX_FROM = 4; // pixels of the screen; a shorter drag is a point

export class Annotations {
  constructor(studyUid) {
    this.studyUid = studyUid; // reports are about this study, not about what it is compared with
    this.tool = ""; // "length", "mark", or "" where the drag scrolls
    this.lengths = new Map(); // "uid/frame" -> [[from, to], ...]
    this.draft = null; // the mark of the report that is being written: {key, mark}
    this.reported = []; // {key, mark, words}
    this.onMark = () => null;
  }

  /** Draw over `image`; `matrix` leads from its pixels to those of the canvas. */
  draw(context, matrix, image) {
    const ratio = devicePixelRatio || 1;
    context.save();
    context.lineWidth = 2 * ratio;
    context.font = `${13 * ratio}px system-ui, sans-serif`;
    for (const [from, to] of this.lengths.get(keyOf(image)) ?? []) {
      drawLength(context, at(matrix, from), at(matrix, to), lengthInWords(from, to, image), ratio);
    }
    for (const one of [...this.reported, this.draft].filter((mark) => mark?.key === keyOf(image))) {
      drawMark(context, matrix, one.mark, one.words ?? "", ratio, one === this.draft);
    }
    context.restore();
  }

  /** Begin to draw at a point; return whether a tool has taken it. */
  begin(viewer, point) {
    if (!this.tool || !viewer.frame) return false;
    if (this.tool === "mark" && viewer.image.studyUid !== this.studyUid) return false;
    this.from = point;
    if (this.tool === "length") {
      const key = keyOf(viewer.image);
      this.lengths.set(key, [...(this.lengths.get(key) ?? []), [point, point]]);
    }
    return true;
  }

  move(viewer, point) {
    if (this.tool === "length") this.lengths.get(keyOf(viewer.image)).at(-1)[1] = point;
    if (this.tool === "mark") this.draft = { key: keyOf(viewer.image), mark: markOf(viewer, this.from, point) };
    viewer.draw();
  }

  end(viewer, point) {
    const key = keyOf(viewer.image);
    if (this.tool === "length") {
      const [from, to] = this.lengths.get(key).at(-1);
      if (Math.hypot(to[0] - from[0], to[1] - from[1]) < 1) this.lengths.get(key).pop(); // a mere click
    }
    if (this.tool === "mark") {
      this.draft = { key, mark: markOf(viewer, this.from, point) };
      this.onMark(viewer.image, this.draft.mark);
    }
    viewer.draw();
  }

  /** Remove the lengths on an image. */
  clear(image) {
    this.lengths.delete(keyOf(image));
  }
}

export function keyOf({ uid, frame }) {
  return `${uid}/${frame ?? 1}`;
}

/** Return the box between two points of the viewer's image, or a point where that is tiny. */
function markOf(viewer, from, to) {
  const { rows, columns } = viewer.frame;
  const inside = ([x, y]) => [bounded(x, columns), bounded(y, rows)];
  const [[x0, y0], [x1, y1]] = [inside(from), inside(to)];
  const { a, b } = viewer.matrix();
  const size = Math.min(Math.abs(x1 - x0), Math.abs(y1 - y0)) * Math.hypot(a, b);
  if (size < IS_A_BOX_FROM) return [x0, y0];
  return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
}

function bounded(value, size) {
  return Math.round(Math.min(size, Math.max(0, value)) * 10) / 10;
}

function at(matrix, [x, y]) {
  return matrix.transformPoint({ x, y });
}

function drawLength(context, from, to, words, ratio) {
  context.strokeStyle = context.fillStyle = LENGTH_COLOUR;
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(to.x, to.y);
  for (const end of [from, to]) {
    context.moveTo(end.x + 3 * ratio, end.y);
    context.arc(end.x, end.y, 3 * ratio, 0, 2 * Math.PI);
  }
  context.stroke();
  write(context, words, Math.max(from.x, to.x) + 8 * ratio, (from.y + to.y) / 2, ratio);
}

function drawMark(context, matrix, mark, words, ratio, isDraft) {
  context.strokeStyle = context.fillStyle = MARK_COLOUR;
  context.setLineDash(isDraft ? [6 * ratio, 4 * ratio] : []);
  const [left, top, right, bottom] = mark;
  const isBox = mark.length === 4;
  const corners = isBox ? [[left, top], [right, top], [right, bottom], [left, bottom]] : [[left, top]];
  const points = corners.map((corner) => at(matrix, corner));
  context.beginPath();
  if (isBox) {
    points.forEach((point, i) => context[i ? "lineTo" : "moveTo"](point.x, point.y));
    context.closePath();
  } else {
    context.arc(points[0].x, points[0].y, 7 * ratio, 0, 2 * Math.PI);
  }
  context.stroke();
  context.setLineDash([]);
  write(context, words, Math.max(...points.map((p) => p.x)) + 10 * ratio, Math.min(...points.map((p) => p.y)), ratio);
}

function write(context, words, x, y, ratio) {
  if (!words) return;
  const left = Math.max(0, Math.min(x, context.canvas.width - context.measureText(words).width - 6 * ratio));
  context.lineJoin = "round";
  context.save();
  context.strokeStyle = "rgb(0 0 0 / .8)";
  context.lineWidth = 4 * ratio;
  context.strokeText(words, left, y);
  context.restore();
  context.fillText(words, left, y);
}
