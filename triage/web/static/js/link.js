/* A second stack beside the first: another study of the patient, scrolled together with it. */

import { nearest, relationOf } from "./geometry.js";

const WORDS = {
  position: "Linked by position (one frame of reference)",
  distance: "Linked by distance along the slices",
  number: "Linked by image number",
};

/** Two stacks that follow each other; each keeps its own window, zoom and overlays. */
export class Link {
  constructor(one, other, onChange) {
    Object.assign(this, { one, other, onChange });
    this.relation = null;
    this.isFollowing = false;
    for (const viewer of [one, other]) viewer.followers.add((moved) => this.#follow(moved));
  }

  get isLinked() {
    return this.relation !== null;
  }

  /** Link the stacks as they stand now. */
  link() {
    this.linked = this.#series();
    this.relation = relationOf(this.one, this.other);
    const { by, sign } = this.relation;
    if (by === "number") this.offset = this.other.index - this.one.index;
    else this.offset = by === "position" ? 0 : sign * this.other.image.depth - this.one.image.depth;
    this.onChange();
    if (by === "position") this.#follow(this.one);
  }

  unlink() {
    this.relation = null;
    this.onChange();
  }

  #series() {
    return `${this.one.series?.series_instance_uid} ${this.other.series?.series_instance_uid}`;
  }

  inWords() {
    return this.relation ? WORDS[this.relation.by] : "Not linked";
  }

  #follow(moved) {
    if (!this.relation || this.isFollowing) return;
    if (this.linked !== this.#series()) return void this.link(); // another series: they lie otherwise
    const isOne = moved === this.one;
    const follower = isOne ? this.other : this.one;
    const { by, sign } = this.relation;
    const offset = isOne ? this.offset : -this.offset;
    let index = moved.index + offset;
    if (by !== "number") {
      // Depths are compared along the first stack's normal.
      const depth = isOne ? sign * (moved.image.depth + offset) : sign * moved.image.depth + offset;
      index = nearest(follower.images, depth);
    }
    this.isFollowing = true;
    if (index !== follower.index) follower.show(index);
    this.isFollowing = false;
  }
}

/** Return the series of `study` that is most like `series`: its modality, name and length. */
export function mostAlike(study, series) {
  const words = (one) => new Set(one.description.toLowerCase().split(/\W+/).filter(Boolean));
  const count = (one) => one.images.reduce((sum, image) => sum + image.frames, 0);
  const wanted = series ? words(series) : new Set();
  const likeness = (one) =>
    (one.is_result ? -1000 : 0) +
    (one.modality === series?.modality ? 100 : 0) +
    10 * [...words(one)].filter((word) => wanted.has(word)).length -
    (series ? Math.abs(Math.log(count(one) / count(series))) : 0);
  return study.series.filter((one) => one.images.length).sort((a, b) => likeness(b) - likeness(a))[0];
}
