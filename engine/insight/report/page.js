// The page's own script: language, theme, tiles by customers or revenue, and the time machine. Without it all is there.
(() => {
  const root = document.documentElement;
  const press = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));
  const group = (name, act) => {
    const buttons = [...document.querySelectorAll(`[data-${name}-button]`)];
    const choose = (button) => { press(buttons, button); act(button.getAttribute(`data-${name}-button`)); };
    buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
    return (value) => { const found = buttons.find((b) => b.getAttribute(`data-${name}-button`) === value); if (found) choose(found); };
  };
  const language = group("lang", (value) => { root.dataset.lang = value; root.lang = value === "zh" ? "zh-Hans" : "en"; });
  const theme = group("theme", (value) => { root.dataset.theme = value; });
  group("measure", (value) => document.querySelectorAll("[data-measure]").forEach(
    (part) => part.classList.toggle("hidden", part.dataset.measure !== value)));
  language(root.dataset.lang);
  theme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

  const machine = document.getElementById("machine");
  if (machine) {
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
  }

  // Paper shows every table.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((part) => { part.open = true; });
  });
  window.addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
