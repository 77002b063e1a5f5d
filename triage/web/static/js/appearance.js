/* Dark, light or as the system says, and narrow rows: chosen per browser, before anything is drawn. */

(() => {
  const THEMES = { system: "(prefers-color-scheme: light)", dark: "not all", light: "all" };
  const WORDS = { system: "as the system", dark: "dark", light: "light" };
  const MARKS = { system: "◐", dark: "●", light: "○" };
  const read = (name, otherwise) => {
    try {
      return localStorage.getItem(`triage.${name}`) ?? otherwise;
    } catch {
      return otherwise; // a browser that keeps nothing
    }
  };
  const write = (name, value) => {
    try {
      localStorage.setItem(`triage.${name}`, value);
    } catch {
      // it holds until the page is left
    }
  };
  let theme = read("theme", "system");
  let density = read("density", "comfortable");

  function apply() {
    if (!(theme in THEMES)) theme = "system";
    document.getElementById("light").media = THEMES[theme];
    document.documentElement.dataset.density = density;
    const button = document.getElementById("appearance");
    if (button) {
      button.hidden = false;
      button.textContent = MARKS[theme];
      button.title = `Colours: ${WORDS[theme]}`;
      button.setAttribute("aria-label", `Colours: ${WORDS[theme]}. Change`);
    }
    document.getElementById("density")?.setAttribute("aria-pressed", String(density === "compact"));
  }

  function changeTheme() {
    const names = Object.keys(THEMES);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    write("theme", theme);
    apply();
  }

  function changeDensity() {
    density = density === "compact" ? "comfortable" : "compact";
    write("density", density);
    apply();
  }

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("appearance")?.addEventListener("click", changeTheme);
    document.getElementById("density")?.addEventListener("click", changeDensity);
  });
})();
