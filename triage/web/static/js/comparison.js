/* The pane beside the images: another study of the patient, in a stack of its own. */

import { Link, mostAlike } from "./link.js";
import { handlePointer } from "./gestures.js";
import { HeatMaps } from "./heat.js";
import { Overlays } from "./overlay.js";
import { placeOf, Viewer } from "./viewer.js";

const byId = (id) => document.getElementById(id);

export class Comparison {
  /** `main` is the viewer of the study itself, `onChange` is called after every change. */
  constructor({ frames, main, annotations, onChange }) {
    Object.assign(this, { frames, main, annotations, onChange });
    this.viewer = null;
    this.link = null;
    this.study = null;
    this.isInUse = false;
    this.pane = byId("prior-pane");
    const choice = byId("prior-choice");
    choice?.addEventListener("change", () => (choice.value ? this.open(choice.value) : this.close()));
    byId("prior-series").addEventListener("change", (event) => this.#openSeries(event.target.value));
    for (const pane of [byId("pane"), this.pane]) {
      for (const kind of ["pointerdown", "focusin", "wheel"]) {
        pane.addEventListener(kind, () => this.#use(pane === this.pane), { passive: true });
      }
    }
  }

  /** The viewer that keys and buttons mean: the one that was touched last. */
  get viewerInUse() {
    return this.isInUse && this.viewer && !this.pane.hidden ? this.viewer : this.main;
  }

  #use(isInUse) {
    if (this.isInUse === isInUse) return;
    this.isInUse = isInUse;
    this.#mark();
    this.onChange();
  }

  #mark() {
    byId("panes").dataset.inUse = this.pane.hidden ? "" : this.isInUse ? "prior" : "main";
  }

  /** Show another study beside this one. */
  async open(studyUid) {
    this.pane.hidden = false;
    this.#mark();
    this.#begin(studyUid);
    this.viewer.say("Loading images…");
    try {
      const [response] = await Promise.all([
        fetch(`/api/v1/studies/${studyUid}`, { headers: { Accept: "application/json" } }),
        ...[this.viewer.overlays, this.viewer.heatMaps].map((one) => one.load().catch(() => false)),
      ]);
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      this.study = await response.json();
    } catch (error) {
      this.viewer.say(`The other study cannot be shown: ${error.message}`, true);
      return;
    }
    const { patient, study_date: date } = this.study;
    byId("prior-corner-patient").textContent = [patient.name, patient.patient_id, date].filter(Boolean).join("\n");
    this.#listSeries();
    const series = mostAlike(this.study, this.main.series);
    if (series) await this.#openSeries(series.series_instance_uid);
    else this.viewer.say("That study has no images here to show.");
  }

  #begin(studyUid) {
    const [overlays, heatMaps] = [new Overlays(studyUid), new HeatMaps(studyUid)];
    this.link?.unlink();
    if (this.viewer) {
      Object.assign(this.viewer, { overlays, heatMaps, series: null, images: [], frame: null, layers: [], heat: null });
      this.viewer.draw();
      return;
    }
    const place = placeOf("prior-");
    const { frames, annotations } = this;
    this.viewer = new Viewer({ frames, overlays, heatMaps, place, annotations, onChange: () => this.#show() });
    handlePointer(this.viewer, place, annotations);
    this.link = new Link(this.main, this.viewer, () => this.#show());
  }

  #listSeries() {
    const options = this.study.series.filter((one) => one.images.length).map((one) =>
      Object.assign(document.createElement("option"), {
        value: one.series_instance_uid,
        textContent: `${one.modality} ${one.description || `series ${one.number ?? ""}`}`,
      }),
    );
    byId("prior-series").replaceChildren(...options);
  }

  async #openSeries(seriesUid) {
    const series = this.study.series.find((one) => one.series_instance_uid === seriesUid);
    byId("prior-series").value = seriesUid;
    this.link.unlink();
    const opening = this.viewer.open(this.study.study_instance_uid, series);
    // Where the two share no frame of reference, they begin at the same part of the way through.
    const { index, images } = this.main;
    const part = images.length > 1 ? index / (images.length - 1) : 0.5;
    await Promise.all([opening, this.viewer.show(Math.round(part * (this.viewer.images.length - 1)))]);
    this.link.link();
  }

  toggleLink() {
    if (!this.viewer || this.pane.hidden || !this.viewer.images.length) return;
    if (this.link.isLinked) this.link.unlink();
    else this.link.link();
  }

  close() {
    this.pane.hidden = true;
    this.isInUse = false;
    this.link?.unlink();
    this.frames.want(this.viewer, []);
    byId("prior-choice").value = "";
    this.#mark();
    this.onChange();
  }

  #show() {
    byId("prior-stack").hidden = this.viewer.images.length < 2;
    byId("link-words").textContent = this.link.inWords();
    document.querySelector('[data-do="link"]').setAttribute("aria-pressed", String(this.link.isLinked));
    this.onChange();
  }
}
