/* The rows of the list: they come, move and go in place. The row under the pointer and the one with
   the focus stay where they are, so that nobody opens another study than the one they aimed at. */

import { writeTimes } from "./page.js";

const MOVE = { duration: 420, easing: "cubic-bezier(.2, .7, .2, 1)" };
const A_PIN_HOLDS_MS = 30_000; // a hand that rests on the mouse must not hold back the list all day

export class Rows {
  /** `onShown(rows)` is called after each change of the table, `onWaiting(count)` when rows wait. */
  constructor({ onShown, onWaiting }) {
    this.html = new Map();
    this.order = [...this.all].map((row) => row.dataset.uid);
    this.firstPlace = 1;
    this.hovered = null;
    this.focused = null;
    this.onShown = onShown;
    this.onWaiting = onWaiting;
    this.idle = null;
    this.followPointer();
    this.followFocus();
  }

  get body() {
    return document.getElementById("rows");
  }

  get all() {
    return this.body.rows;
  }

  row(uid) {
    return this.body.querySelector(`tr[data-uid="${CSS.escape(uid)}"]`);
  }

  /** Show the studies `order`; `fresh` has the HTML of those that differ from what was known. */
  show(order, fresh, isSameList) {
    const wasFlagged = new Set([...this.all].filter(isFlagged).map((row) => row.dataset.uid));
    for (const [uid, html] of Object.entries(fresh)) {
      if (this.html.get(uid) === html) delete fresh[uid];
      this.html.set(uid, html);
    }
    for (const uid of this.html.keys()) if (!order.includes(uid)) this.html.delete(uid);
    this.order = order;
    if (!isSameList) this.letGo();
    this.place(fresh);
    const flagged = [...this.all].filter((row) => isFlagged(row) && !wasFlagged.has(row.dataset.uid));
    if (isSameList) flagged.forEach(highlight);
    return isSameList ? flagged : [];
  }

  /** Put all rows in order, but those that are held. */
  place(fresh = {}) {
    const before = new Map([...this.all].map((row) => [row.dataset.uid, row.getBoundingClientRect().top]));
    const anchor = this.hovered ?? this.focused;
    const control = this.controlWithFocus();
    const wanted = this.withPins();
    this.replaceRows(wanted, fresh);
    [...this.all].forEach((row, index) => {
      const cell = row.querySelector(".place");
      const place = String(this.firstPlace + index);
      if (cell.textContent !== place) cell.textContent = place;
    });
    writeTimes(this.body);
    this.onShown(this.all);
    this.keepInPlace(anchor, before);
    this.animate(before, anchor);
    control?.();
    this.tellWaiting(wanted);
  }

  /** Return the order to show: a held row keeps its index, the others are in their order around it. */
  withPins() {
    const shown = [...this.all].map((row) => row.dataset.uid);
    const held = [...new Set([this.hovered, this.focused])]
      .map((uid) => ({ uid, index: shown.indexOf(uid) }))
      .filter(({ index }) => index >= 0)
      .sort((a, b) => a.index - b.index);
    const wanted = this.order.filter((uid) => !held.some((pin) => pin.uid === uid));
    for (const { uid, index } of held) wanted.splice(Math.min(index, wanted.length), 0, uid);
    return wanted;
  }

  replaceRows(wanted, fresh) {
    const kept = new Set(wanted);
    for (const row of [...this.all]) if (!kept.has(row.dataset.uid)) row.remove();
    wanted.forEach((uid, index) => {
      let row = this.row(uid);
      if (!row) row = made(this.html.get(uid));
      else if (uid in fresh) become(row, made(fresh[uid]));
      row.classList.toggle("gone", !this.order.includes(uid));
      if (this.all[index] !== row) this.body.insertBefore(row, this.all[index] ?? null);
    });
  }

  /** Scroll by what the held row has moved, so that it stays under the pointer. */
  keepInPlace(uid, before) {
    if (!uid || !before.has(uid)) return;
    const moved = () => (this.row(uid)?.getBoundingClientRect().top ?? before.get(uid)) - before.get(uid);
    if (Math.abs(moved()) < 1) return;
    scrollBy(0, moved());
    const rest = moved();
    if (rest < -1) this.body.closest("#list").style.paddingTop = `${-rest}px`; // nothing above to scroll to
  }

  /** Return what gives the focus back to the control that had it, if a row's content is replaced. */
  controlWithFocus() {
    const active = document.activeElement;
    const uid = active?.closest?.("#rows > tr")?.dataset.uid;
    if (!uid) return null;
    const name = ["a.open", "[data-claim]", "form button"].find((one) => active.matches(one)) ?? "a.open";
    return () => {
      if (!document.activeElement?.closest?.("#rows > tr")) {
        this.row(uid)?.querySelector(name)?.focus({ preventScroll: true });
      }
    };
  }

  tellWaiting(shown) {
    const held = [this.hovered, this.focused].filter((uid, i, all) => uid && all.indexOf(uid) === i);
    const waiting = held.filter((uid) => shown.indexOf(uid) !== this.order.indexOf(uid) && shown.includes(uid));
    let count = 0;
    for (const uid of waiting) {
      const place = this.order.indexOf(uid);
      count += place < 0 ? 1 : Math.abs(place - shown.indexOf(uid));
    }
    this.onWaiting(count);
  }

  /** Hold nothing any more: every row goes to its place. */
  settle() {
    this.letGo();
    this.place();
  }

  letGo() {
    this.hovered = this.focused = null;
    this.body.closest("#list").style.paddingTop = "";
  }

  followPointer() {
    const list = document.getElementById("list");
    list.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      const uid = event.target.closest("#rows > tr")?.dataset.uid ?? null;
      this.hold("hovered", uid);
    });
    list.addEventListener("pointerleave", () => this.hold("hovered", null));
    document.addEventListener("keydown", () => this.restart());
  }

  followFocus() {
    document.addEventListener("focusin", (event) => {
      this.hold("focused", event.target.closest?.("#rows > tr")?.dataset.uid ?? null);
    });
  }

  hold(how, uid) {
    this.restart();
    if (this[how] === uid) return;
    const held = this[how];
    this[how] = uid;
    if (!held) return;
    document.getElementById("list").style.paddingTop = "";
    const shown = [...this.all].map((row) => row.dataset.uid);
    if (shown.some((one, index) => one !== this.order[index])) this.place();
    else this.onWaiting(0);
  }

  restart() {
    clearTimeout(this.idle);
    this.idle = setTimeout(() => this.settle(), A_PIN_HOLDS_MS);
  }

  animate(before, anchor) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const row of this.all) {
      if (row.dataset.uid === anchor) continue;
      const top = row.getBoundingClientRect().top;
      if (!before.has(row.dataset.uid)) {
        row.animate([{ opacity: 0 }, { opacity: 1 }], MOVE);
      } else if (Math.abs(before.get(row.dataset.uid) - top) > 1) {
        const from = `translateY(${before.get(row.dataset.uid) - top}px)`;
        row.animate([{ transform: from }, { transform: "none" }], MOVE);
      }
    }
  }
}

function made(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html; // the server's own, with everything escaped
  return holder.content.querySelector("tr");
}

/** Let a row say what another says, and stay the same element. */
function become(row, other) {
  for (const { name, value } of [...other.attributes]) row.setAttribute(name, value);
  row.replaceChildren(...other.childNodes);
}

function isFlagged(row) {
  return row.dataset.flagged === "yes";
}

function highlight(row) {
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--flag");
  for (const cell of row.cells) {
    const glow = `color-mix(in srgb, ${colour} 38%, transparent)`;
    cell.animate([{ backgroundColor: glow }, { backgroundColor: "transparent" }], { duration: 4000, easing: "ease-in" });
  }
}
