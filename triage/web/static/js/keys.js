/* The worklist by the keyboard: everything that a pointer can do. */

/** Let keys do `actions`; none of them while somebody types or a dialog is open. */
export function handleKeys(rows, actions) {
  const keys = {
    j: () => step(rows, 1),
    ArrowDown: () => step(rows, 1),
    k: () => step(rows, -1),
    ArrowUp: () => step(rows, -1),
    Home: () => focusOn(rows.all[0]),
    End: () => focusOn(rows.all[rows.all.length - 1]),
    Enter: () => current()?.querySelector("a.open").click(),
    c: () => current()?.querySelector("[data-claim]")?.click(),
    r: () => current() && actions.read(current()),
    n: actions.next,
    "/": actions.search,
    f: actions.filters,
    x: actions.clear,
    "[": actions.earlier,
    "]": actions.later,
    d: () => document.getElementById("density").click(),
    t: () => document.getElementById("appearance").click(),
    ".": () => rows.settle(),
    "?": actions.help,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typesIn = event.target.closest('select, textarea, input:not([type="checkbox"])');
    if (event.key === "Escape" && typesIn) return event.target.blur();
    if (typesIn || (event.key === "Enter" && event.target.closest("a, button, input, summary"))) return;
    if (event.target.closest("#filter-panel") && event.key.startsWith("Arrow")) return;
    if (event.key === "Escape") return actions.escape();
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/** The row that keys are about: the one with the focus. */
export function current() {
  return document.activeElement?.closest?.("#rows > tr") ?? null;
}

function step(rows, by) {
  const all = [...rows.all];
  const index = all.indexOf(current());
  focusOn(all[index < 0 ? 0 : Math.min(Math.max(index + by, 0), all.length - 1)]);
}

export function focusOn(row) {
  const link = row?.querySelector("a.open");
  if (!link) return;
  link.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}
