/* Answering: the finding in hand, agree, disagree and unsure by key, what was missed, signing off. */

import { keyOf } from "./annotations.js";
import { reason } from "./pixels.js";
import { toast } from "./page.js";

const byId = (id) => document.getElementById(id);

export class Answers {
  /**
   * `jumpTo` shows a finding on the images; `annotations` lets the reader draw; `refresh` brings
   * the page up to date.
   */
  constructor({ studyUid, jumpTo, showImage, viewer, annotations, refresh }) {
    Object.assign(this, { studyUid, jumpTo, showImage, viewer, annotations, refresh });
    this.study = null;
    this.selected = null; // the id of the finding in hand
    this.placed = null; // where the finding that is being reported lies
    this.form = byId("missed-form");
    annotations.onMark = (image, mark) => this.#place(image, mark);
    document.addEventListener("click", (event) => this.#clicked(event));
    document.addEventListener("submit", (event) => this.#submitted(event));
  }

  /** Learn what the study says now. */
  take(study) {
    this.study = study;
    this.annotations.reported = study.answers.missed
      .filter(({ finding }) => finding.mark)
      .map(({ finding, words }) => ({
        key: keyOf({ uid: finding.sop_instance_uid, frame: finding.frame }),
        mark: finding.mark,
        words,
      }));
    if (!this.#findings().some((one) => one.finding_id === this.selected)) this.selected = null;
    this.showSelection();
  }

  #findings() {
    return this.study?.findings ?? [];
  }

  /** Take a finding in hand, without looking for it on the images. */
  hold(findingId) {
    this.selected = findingId;
    this.showSelection();
  }

  showSelection() {
    for (const article of document.querySelectorAll(".finding")) {
      const isIt = article.id === `finding-${this.selected}`;
      if (isIt) article.setAttribute("aria-current", "true");
      else article.removeAttribute("aria-current");
    }
  }

  /** Take the next finding in hand, or the one before with a step of -1, and show it. */
  step(step) {
    const findings = this.#findings();
    if (!findings.length) return;
    const at = findings.findIndex((one) => one.finding_id === this.selected);
    const next = findings[at < 0 ? 0 : (at + step + findings.length) % findings.length];
    this.#select(next);
    byId(`finding-${next.finding_id}`)?.scrollIntoView({ block: "nearest" });
  }

  #select(finding) {
    this.hold(finding.finding_id);
    this.jumpTo(finding);
  }

  /** Answer the finding in hand. */
  say(verdict) {
    const button = byId(`finding-${this.selected}`)?.querySelector(`button[name="verdict"][value="${verdict}"]`);
    if (!button) return toast("Take a finding in hand first: click on it, or press N.");
    if (button.disabled) return toast("The study is signed off. Add an addendum to answer again.");
    return button.form.requestSubmit(button);
  }

  #clicked(event) {
    const article = event.target.closest(".finding");
    const isControl = event.target.closest("button, input, select, summary, a, label");
    const finding = this.#findings().find((one) => article?.id === `finding-${one.finding_id}`);
    if (finding && !isControl) this.#select(finding);
    else if (finding) this.hold(finding.finding_id);
    const { takeBack, missed, tool } = event.target.closest("button")?.dataset ?? {};
    if (takeBack) this.#send("DELETE", `missed-findings/${takeBack}`, null, "Taken back.");
    if (missed) this.#showMissed(Number(missed));
    if (tool === "mark") this.#aim();
  }

  #showMissed(reportId) {
    const { finding } = this.study.answers.missed.find((one) => one.report_id === reportId);
    this.showImage(finding.sop_instance_uid, finding.frame);
  }

  #aim() {
    const isAiming = this.annotations.tool === "mark";
    this.annotations.tool = isAiming ? "" : "mark";
    byId("missed-aim").setAttribute("aria-pressed", String(!isAiming));
    if (!isAiming) byId("viewport").focus({ preventScroll: false });
  }

  #place(image, mark) {
    this.placed = { image, mark };
    this.annotations.tool = "";
    byId("missed-aim").setAttribute("aria-pressed", "false");
    byId("missed-place").textContent = `${mark.length === 4 ? "A box" : "A point"} on the image shown.`;
    byId("missed-here").checked = true;
  }

  #submitted(event) {
    const form = event.target.closest("form");
    const sends = { "missed-form": () => this.#report(), "sign-off": () => this.#sign(), addendum: () => this.#addendum(form) };
    const send = sends[form?.dataset.answers];
    if (!send) return;
    event.preventDefault();
    send();
  }

  async #report() {
    const { code, words, laterality, here } = Object.fromEntries(new FormData(this.form));
    const image = this.placed?.image ?? this.viewer.image;
    const finding = { words, laterality };
    if (code) finding.code = JSON.parse(code);
    if (here && image) Object.assign(finding, { sop_instance_uid: image.uid, frame: image.frame });
    if (here && this.placed) finding.mark = this.placed.mark;
    if (!code && !words.trim()) return toast("Choose what was missed, or say it in words.");
    if (!(await this.#send("POST", "missed-findings", finding, "Reported."))) return undefined;
    this.form.reset();
    this.form.closest("details").open = false;
    this.placed = this.annotations.draft = null;
    byId("missed-place").textContent = "";
    return this.viewer.draw();
  }

  #sign() {
    return this.#send("POST", "sign-off", null, "Signed off.");
  }

  #addendum(form) {
    const reasonGiven = new FormData(form).get("reason") ?? "";
    form.reset(); // what is being written there would not be replaced
    return this.#send("POST", "addenda", { reason: reasonGiven }, "The answers are open again.");
  }

  async #send(method, address, body, done) {
    const headers = { "X-Triage-Request": "page", Accept: "application/json" };
    if (body) headers["Content-Type"] = "application/json";
    const response = await fetch(`/api/v1/studies/${this.studyUid}/${address}`, {
      method,
      headers,
      body: body && JSON.stringify(body),
    }).catch(() => null);
    const isDone = Boolean(response?.ok);
    toast(isDone ? done : `Nothing was changed: ${response ? await reason(response) : "the server does not answer"}.`);
    this.refresh();
    return isDone;
  }
}
