/* Search, filters and saved views. What is searched for may name a patient: it stays in this page and
   in the body of requests, never in an address, and a view never keeps it. */

import { toast } from "./page.js";

const KEPT = "triage.worklist";
const TYPING_PAUSE_MS = 200;
const SETS = ["modalities", "body_parts", "patient_classes", "wards", "statuses"];
export const NOTHING = {
  modalities: [], body_parts: [], patient_classes: [], wards: [], statuses: [],
  assigned: "anybody", person: "", flagged: false, text: "",
};
const ASSIGNED = { me: "read by me", nobody: "read by nobody", others: "read by somebody else" };
const byId = (id) => document.getElementById(id);

export class Filters {
  /** `onChange(wanted)` is called whenever another part of the list is wanted. */
  constructor(list, onChange) {
    this.onChange = onChange;
    this.wanted = { ...NOTHING, ...JSON.parse(list.dataset.wanted) };
    this.view = list.dataset.view;
    this.views = [];
    this.panel = byId("filter-panel");
    this.typing = null; // the timer of what is typed and not yet wanted
    const typed = byId("filter-text").value; // before this script was here
    this.isRestored = this.restore() || Boolean(typed);
    if (typed) this.wanted.text = typed;
    this.listen();
    this.show();
    this.loadViews();
  }

  /** Take up what this tab had before another page was looked at. */
  restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEPT));
      if (!kept) return false;
      this.wanted = { ...NOTHING, ...kept.wanted };
      this.view = kept.view;
      return true;
    } catch {
      return false;
    }
  }

  change(part, view = this.view) {
    this.wanted = { ...this.wanted, ...part };
    this.view = view;
    try {
      sessionStorage.setItem(KEPT, JSON.stringify({ wanted: this.wanted, view: this.view }));
    } catch {
      // it holds until the page is left
    }
    this.show();
    this.onChange(this.wanted);
  }

  clear() {
    this.stopTyping();
    this.change(NOTHING, "");
  }

  /** Want what is typed, once the typing pauses. */
  type(text) {
    this.stopTyping();
    this.typing = setTimeout(() => {
      this.typing = null;
      this.change({ text });
    }, TYPING_PAUSE_MS);
  }

  stopTyping() {
    clearTimeout(this.typing);
    this.typing = null;
  }

  listen() {
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    this.panel.addEventListener("submit", (event) => event.preventDefault());
    byId("filter-text").addEventListener("input", (event) => this.type(event.target.value));
    byId("filter-flagged").addEventListener("change", (event) => this.change({ flagged: event.target.checked }));
    byId("filter-open").addEventListener("click", () => this.toggle());
    byId("filter-assigned").addEventListener("change", (event) => this.assign(event.target));
    byId("filter-clear").addEventListener("click", () => this.clear());
    byId("views").addEventListener("change", (event) => this.choose(event.target.value));
    byId("view-save").addEventListener("click", () => this.save());
    byId("view-delete").addEventListener("click", () => this.remove());
    this.panel.addEventListener("change", (event) => {
      const set = event.target.closest("fieldset")?.dataset.choice;
      if (!set) return;
      const chosen = [...this.panel.querySelectorAll(`[data-choice="${set}"] input:checked`)];
      this.change({ [set]: chosen.map((box) => box.value) });
    });
    document.addEventListener("click", (event) => {
      if (event.target.closest("[data-clear-filter]")) this.clear();
      const chip = event.target.closest("[data-drop]");
      if (chip) this.change(JSON.parse(chip.dataset.drop));
    });
  }

  assign(select) {
    const person = select.selectedOptions[0].dataset.person ?? "";
    this.change({ assigned: person ? "person" : select.value, person });
  }

  /** Open or close the panel; what there is to choose from is asked for each time. */
  async toggle(isOpen = this.panel.hidden) {
    this.panel.hidden = !isOpen;
    byId("filter-open").setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) return byId("filter-open").focus();
    await this.offer();
    this.panel.querySelector("input, select")?.focus();
  }

  async offer() {
    const answer = await fetch("/api/v1/worklist/choices", { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const choices = await answer.json();
    for (const set of SETS) if (choices[set]) this.offerSet(set, choices[set]);
    const select = byId("filter-assigned");
    select.querySelectorAll("[data-person]").forEach((option) => option.remove());
    for (const name of choices.people) {
      const option = new Option(name, `person:${name}`);
      option.dataset.person = name;
      select.add(option);
    }
    this.show();
  }

  offerSet(set, offers) {
    const place = this.panel.querySelector(`[data-choice="${set}"]`);
    place.querySelectorAll("label").forEach((label) => label.remove());
    const known = new Set(offers.map((offer) => offer.value));
    const gone = this.wanted[set].filter((value) => !known.has(value));
    for (const offer of [...offers, ...gone.map((value) => ({ value, label: value, studies: 0 }))]) {
      const label = Object.assign(document.createElement("label"), { className: "check" });
      const box = Object.assign(document.createElement("input"), { type: "checkbox", value: offer.value });
      const count = Object.assign(document.createElement("span"), { className: "sub", textContent: offer.studies });
      label.append(box, ` ${offer.label} `, count);
      place.append(label);
    }
    place.hidden = !place.querySelector("label");
  }

  /** Let all controls say what is wanted. */
  show() {
    const { wanted } = this;
    if (!this.typing) byId("filter-text").value = wanted.text; // no typing is undone
    byId("filter-flagged").checked = wanted.flagged;
    for (const set of SETS) {
      for (const box of this.panel.querySelectorAll(`[data-choice="${set}"] input`)) {
        box.checked = wanted[set].includes(box.value);
      }
    }
    byId("filter-assigned").value = wanted.assigned === "person" ? `person:${wanted.person}` : wanted.assigned;
    this.showChosen();
    byId("views").value = this.view;
    byId("view-delete").hidden = !this.view;
  }

  showChosen() {
    const { wanted } = this;
    const chips = SETS.flatMap((set) =>
      wanted[set].map((value) => [this.label(set, value), { [set]: wanted[set].filter((one) => one !== value) }]),
    );
    if (wanted.assigned !== "anybody") {
      const said = wanted.assigned === "person" ? `read by ${wanted.person}` : ASSIGNED[wanted.assigned];
      chips.push([said, { assigned: "anybody", person: "" }]);
    }
    byId("filter-open").textContent = chips.length ? `Filters (${chips.length})` : "Filters";
    const place = byId("chosen");
    place.hidden = !chips.length;
    place.replaceChildren(...chips.map(([said, drop]) => {
      const chip = Object.assign(document.createElement("button"), { type: "button", className: "quiet chosen-one" });
      chip.textContent = `${said} ×`;
      chip.setAttribute("aria-label", `Remove the filter ${said}`);
      chip.dataset.drop = JSON.stringify(drop);
      return chip;
    }));
  }

  label(set, value) {
    const box = this.panel.querySelector(`[data-choice="${set}"] input[value="${CSS.escape(value)}"]`);
    return box?.nextSibling?.data?.trim() || value;
  }

  async loadViews() {
    const answer = await fetch("/api/v1/worklist/views", { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    this.views = await answer.json();
    const select = byId("views");
    select.replaceChildren(new Option("All studies", ""));
    for (const view of this.views) select.add(new Option(view.is_default ? `${view.name} (default)` : view.name, view.name));
    if (!this.views.some((view) => view.name === this.view)) this.view = "";
    this.show();
  }

  choose(name) {
    const view = this.views.find((one) => one.name === name);
    byId("view-name").value = name;
    byId("view-default").checked = view?.is_default ?? false;
    this.change({ ...NOTHING, ...view?.filter, text: this.wanted.text }, name);
  }

  async save() {
    const name = byId("view-name").value.trim();
    if (!name || name.includes("/")) return toast("Give the view a name, without a slash.");
    const { text, ...filter } = this.wanted;
    await this.send("PUT", name, { filter, is_default: byId("view-default").checked });
    this.view = name;
    await this.loadViews();
    this.change({});
    toast(text ? `Saved as ${name}, without what you searched for.` : `Saved as ${name}.`);
  }

  async remove() {
    await this.send("DELETE", this.view);
    toast(`${this.view} is deleted.`);
    this.view = "";
    await this.loadViews();
    this.change({});
  }

  async send(method, name, body) {
    const answer = await fetch(`/api/v1/worklist/views/${encodeURIComponent(name)}`, {
      method,
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    if (!answer.ok) toast(`Nothing was changed: ${(await answer.json()).detail}`);
  }
}
