/* Playing a stack: one image after the other, round the end, until somebody scrolls. */

const USUAL_RATE = 15;

export class Cine {
  /** `onChange` is called when it begins and ends. */
  constructor(viewerInUse, rateInput, onChange) {
    Object.assign(this, { viewerInUse, rateInput, onChange });
    this.viewer = null;
  }

  get isPlaying() {
    return this.viewer !== null;
  }

  toggle() {
    if (this.isPlaying) this.stop();
    else this.#play(this.viewerInUse());
  }

  stop() {
    this.viewer = null;
    this.onChange();
  }

  async #play(viewer) {
    if (viewer.images.length < 2) return;
    this.viewer = viewer;
    // The rate is the image's own until somebody sets another.
    if (!this.rateInput.dataset.isSet) this.rateInput.value = String(Math.round(viewer.frame?.frameRate || USUAL_RATE));
    this.onChange();
    const { series } = viewer;
    let expected = viewer.index;
    while (this.viewer === viewer && viewer.series === series && viewer.index === expected) {
      const began = performance.now();
      expected = (viewer.index + 1) % viewer.images.length;
      await viewer.show(expected);
      const rest = 1000 / Math.min(60, Math.max(1, Number(this.rateInput.value) || USUAL_RATE)) - (performance.now() - began);
      await new Promise((done) => setTimeout(done, Math.max(0, rest)));
    }
    if (this.viewer === viewer) this.stop();
  }
}
