// The page's own script: language, theme, tiles by customers or revenue, and the time machine. Without it all is there.
const page = (() => {
  const root = document.documentElement;
  const acts = {
    lang: (value) => { root.dataset.lang = value; root.lang = value; },
    theme: (value) => { root.dataset.theme = value; },
    measure: (value) => document.querySelectorAll("[data-measure]").forEach(
      (part) => part.classList.toggle("hidden", part.dataset.measure !== value)),
  };
  const choose = (name, value) => {
    document.querySelectorAll(`[data-${name}-button]`).forEach(
      (b) => b.setAttribute("aria-pressed", String(b.getAttribute(`data-${name}-button`) === value)));
    acts[name](value);
  };
  // Parts of a live page come and go: their buttons are found when they are pressed.
  document.addEventListener("click", (event) => Object.keys(acts).forEach((name) => {
    const button = event.target.closest(`[data-${name}-button]`);
    if (button) choose(name, button.getAttribute(`data-${name}-button`));
  }));
  const firstLang = root.dataset.lang;
  choose("lang", firstLang);
  choose("theme", window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

  const startMachine = () => {
    const machine = document.getElementById("machine");
    if (!machine) return;
    const data = JSON.parse(document.getElementById("sizes-data").textContent);
    const most = Math.max(1, ...data.customers.flat());
    const fills = [...document.querySelectorAll("[data-fill]")];
    const counts = [...document.querySelectorAll("[data-count]")];
    const day = document.getElementById("day");
    const show = () => {
      const at = Number(machine.value);
      const ahead = at > data.last;
      day.textContent = data.days[at];
      machine.setAttribute("aria-valuetext", data.days[at]);
      document.getElementById("is-ahead").classList.toggle("hidden", !ahead);
      data.customers[at].forEach((count, tier) => {
        fills[tier].style.width = `${(100 * count) / most}%`;
        fills[tier].classList.toggle("ahead", ahead);
        counts[tier].textContent = count.toLocaleString("en");
      });
    };
    machine.addEventListener("input", show);
    show();
  };
  startMachine();

  // Paper shows every table.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((part) => { part.open = true; });
  });
  window.addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
  return { choose, startMachine, firstLang };
})();
