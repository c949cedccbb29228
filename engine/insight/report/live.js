// The live page's script: follows the worker, and asks it for pictures and customers. Nothing comes from elsewhere.
(() => {
  const { words, notes } = JSON.parse(document.getElementById("words").textContent);
  const LANGUAGES = ["en", "zh-Hans", "zh-Hant"];
  const at = (id) => document.getElementById(id);
  const el = (tag, props = {}, ...children) => {
    const made = document.createElement(tag);
    Object.entries(props).forEach(([name, value]) => { if (value !== undefined) made.setAttribute(name, value); });
    made.append(...children);
    return made;
  };
  // A text in English, simplified and traditional Chinese, of which the page shows one.
  const inAll = ([en, hans, hant]) => {
    const part = document.createDocumentFragment();
    if (en === hans && en === hant) part.append(en);
    else {
      part.append(el("span", { class: "en", lang: "en" }, en));
      if (hans === hant) part.append(el("span", { class: "zh", lang: "zh" }, hans));
      else part.append(el("span", { class: "hans", lang: "zh-Hans" }, hans), el("span", { class: "hant", lang: "zh-Hant" }, hant));
    }
    return part;
  };
  const filled = (texts, values) => inAll(texts.map((text) => text.replace(/\{(\w+)\}/g, (_, name) => values[name])));
  // One of the page's own texts, by its English; what it does not know it shows as it is.
  const word = (en, values = {}) => filled([en, ...(words[en] || [en, en])], values);
  // The same with a value for each language; what a ruleset calls itself is English, its name is nobody's language.
  const word3 = (en, values) => [en, ...words[en]].map((text, place) => text.replace("{rules}", values[place]));
  const shortId = (identity) => identity.split("[")[0];
  // What stands where no markup may: in the language that is shown.
  const spoken = (en) => [en, ...(words[en] || [en, en])][Math.max(LANGUAGES.indexOf(document.documentElement.dataset.lang), 0)];
  const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
  let state = null;
  const money = (minor) => {
    if (minor === null || minor === undefined) return "–";
    const exponent = state.currency_exponent;
    const digits = String(Math.abs(minor)).padStart(exponent + 1, "0");
    const whole = digits.slice(0, digits.length - exponent).replace(/\B(?=(\d{3})+$)/g, ",");
    return `${minor < 0 ? "-" : ""}${whole}${exponent ? `.${digits.slice(-exponent)}` : ""}`;
  };
  const instant = (text) => {
    const moment = new Date(text);
    if (!text || Number.isNaN(moment.getTime())) return text || "–";
    const parts = Object.fromEntries(new Intl.DateTimeFormat("en-CA", { timeZone: state.time_zone, hourCycle: "h23",
      year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" })
      .formatToParts(moment).map((part) => [part.type, part.value]));
    return `${parts.year}-${parts.month}-${parts.day} ${parts.hour}:${parts.minute}:${parts.second}`;
  };
  const tierName = (id) => {
    const found = state.tiers.find((tier) => tier.id === id);
    if (id === null || id === undefined) return word("No tier");
    return found ? inAll([found.label_en, found.label_zh, found.label_zh]) : id;
  };
  const tierNameAndId = (id) => {
    const part = document.createDocumentFragment();
    part.append(tierName(id));
    if (id) part.append(" ", el("small", { class: "muted" }, id));
    return part;
  };
  const isText = (cell) => typeof cell !== "string" || !/^[-–\d,.]+( [A-Z]{3})?$/.test(cell);
  const table = (caption, heads, rows, isTitled) => {
    const texts = heads.map((_, place) => (place === 0 || (rows.length && isText(rows[0][place])) ? "text" : undefined));
    const head = el("tr", {}, ...heads.map((name, place) => el("th", { scope: "col", class: texts[place] }, word(name))));
    const body = rows.map((row) => el("tr", {}, ...row.map((cell, place) => (
      place ? el("td", { class: texts[place] }, cell) : el("th", { scope: "row", class: "text" }, cell)))));
    return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
      el("table", {}, el("caption", { class: isTitled ? "unseen" : undefined }, word(caption)), el("thead", {}, head), el("tbody", {}, ...body)));
  };

  // What is looked at is in the address, so that it can be kept as a bookmark: view, population, and the language.
  let choice = {};
  let turn = 0;
  const readAddress = () => {
    const given = new URLSearchParams(window.location.search);
    choice = { view: given.get("view"), population: given.get("population") };
    if (LANGUAGES.includes(given.get("lang"))) page.choose("lang", given.get("lang"));
  };
  const address = () => {
    const lang = document.documentElement.dataset.lang;
    const made = query(choice, { lang: lang === page.firstLang ? null : lang });
    return `${window.location.pathname}${made}`;
  };
  const query = (...parts) => {
    const named = Object.entries(Object.assign({}, ...parts)).filter(([, value]) => value !== null && value !== undefined);
    return named.length ? `?${new URLSearchParams(named)}` : "";
  };
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-lang-button]")) return;
    window.history.replaceState(null, "", address());
    nameAll();
  });

  // Whoever is not on loopback shows a token; it stays in this tab.
  let following = new AbortController();
  const ask = async (path, accept, more = {}) => {
    const headers = { Accept: accept };
    const token = sessionStorage.getItem("token");
    // A header holds bytes: those of the token in UTF-8.
    if (token) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}`;
    const answer = await fetch(path, { headers, cache: "no-store", ...more });
    at("login").classList.toggle("hidden", answer.status !== 401);
    return answer;
  };
  at("login").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", at("token").value);
    at("token").value = "";
    at("login").classList.add("hidden");
  });

  const figure = (name, value, bad) => {
    const place = document.querySelector(`[data-figure="${name}"]`);
    if (!place.firstChild || place.textContent !== value) place.replaceChildren(value);
    place.parentElement.classList.toggle("bad", Boolean(bad));
  };
  const showHealth = () => {
    const lag = state.partitions.reduce((sum, one) => sum + one.lag, 0);
    figure("state", state.ready ? word("ready") : word("recovering"), !state.ready);
    figure("lag", number(lag), lag > 10000);
    figure("partitions", `${state.partitions.length} / ${state.expected}`, state.missing.length > 0);
    ["customers", "changes", "applied", "rejected"].forEach((name) => figure(name, number(state[name])));
    at("partition-table").replaceChildren(table("Partitions", ["Partition", "State", "Lag", "Position", "Clock", "Rejected"],
      [...state.partitions.map((one) => [one.name, word(one.state), number(one.lag), number(one.position), instant(one.clock), number(one.rejected)]),
        ...state.missing.map((name) => [name, word("elsewhere"), "–", "–", "–", "–"])], true));
    at("notes").replaceChildren(...state.notes.map((note) => el("p", { class: "note" },
      filled(notes[note.key], { count: number(note.count) }))));
  };
  const showTiers = () => {
    const counted = state.tiers;
    const most = Math.max(1, ...counted.map((tier) => tier.customers));
    const levels = at("tier-levels");
    const named = JSON.stringify(counted.map((tier) => [tier.id, tier.label_en]));
    if (levels.dataset.tiers !== named) {
      levels.dataset.tiers = named;
      levels.replaceChildren(...counted.flatMap((tier) => [el("div", {}, tierNameAndId(tier.id)),
        el("div", { class: "track" }, el("div", { class: "fill" })), el("div", { class: "count" })]));
    }
    counted.forEach((tier, place) => {
      levels.children[3 * place + 1].firstChild.style.width = `${(100 * tier.customers) / most}%`;
      levels.children[3 * place + 2].textContent = number(tier.customers);
    });
  };
  let newest = "";
  let shown = {};
  const changeRows = (changes) => changes.map((change) => [instant(change.effective_at), customerButton(change.customer_id, change.population),
    ...(isParted() ? [change.population || "–"] : []), tierName(change.from_tier), tierName(change.to_tier), word(change.reason.replaceAll("_", " ")), number(change.frequency), money(change.monetary_minor)]);
  const CHANGE_HEADS = ["When", "Customer", "Population", "From", "To", "Reason", "Orders (F)", "Spend (M)"];
  const customerButton = (id, population, text = id) => {
    const made = el("button", { type: "button", class: "link" }, text);
    made.addEventListener("click", () => { at("customer").value = id; search(id, population); at("search").scrollIntoView(); });
    return made;
  };
  // Of a view that parts customers a line says in which population it is.
  const isParted = () => Boolean(view() && view().per && !state.population);
  const changeHeads = () => CHANGE_HEADS.filter((name) => name !== "Population" || isParted());
  const showNewest = () => {
    const key = state.newest.map((change) => JSON.stringify([change.population, change.customer_id, change.seq])).join();
    if (key === newest && at("newest-table").children.length) return;
    newest = key;
    at("newest-table").replaceChildren(state.newest.length
      ? table("Newest tier changes", changeHeads(), changeRows(state.newest), true) : el("p", { class: "muted" }, word("None since the worker started.")));
  };

  // The choice of a view, and of a population where the view parts its customers.
  const view = () => (state ? state.views.find((one) => one.name === state.view) : undefined);
  const options = (select, made) => {
    const value = select.value;
    select.replaceChildren(...made.map(([option, text]) => el("option", { value: option }, text)));
    select.value = value;
  };
  let offered = "";
  const known = { view: undefined, names: new Set(), asking: false };
  const showChoice = () => {
    const chosen = view();
    at("choice").classList.toggle("hidden", !chosen);
    if (!chosen) return;
    document.title = `${[chosen.name, choice.population].filter(Boolean).join(" · ")} · rfmstream`;
    const offers = JSON.stringify(state.views);
    if (offered !== offers) {
      offered = offers;
      options(at("view"), state.views.map((one) => [one.name, one.name]));
    }
    at("view").value = chosen.name;
    at("population-choice").classList.toggle("hidden", !chosen.per);
    at("per").textContent = chosen.per || "";
    const where = Object.entries(chosen.where).map(([column, values]) => `${column} = ${values.join(" / ")}`).join(", ");
    at("choice-text").replaceChildren(...[
      inAll(word3("Rules: {rules}.", [chosen.title || shortId(chosen.ruleset), shortId(chosen.ruleset), shortId(chosen.ruleset)])),
      where && word("Only orders with {where}.", { where }),
      chosen.per && word("Customers are counted apart for each {per}.", { per: chosen.per }),
      chosen.shadow && word("A shadow: computed for comparison, nobody acts on it."),
    ].filter(Boolean).flatMap((part) => [part, " "]));
    if (known.view === chosen.name && at("population") !== document.activeElement) at("population").value = choice.population || "";
    const isNew = state.newest.some((change) => change.population && !known.names.has(change.population));
    if (chosen.per && (known.view !== chosen.name || isNew)) offerPopulations(chosen);
  };
  const offerPopulations = async (chosen) => {
    if (known.asking) return;
    known.asking = true;
    try {
      const answer = await ask(`page/populations${query({ view: chosen.name })}`, "application/json");
      if (!answer.ok) return;
      const told = await answer.json();
      const names = told.populations.map((one) => one.name);
      if (choice.population && !names.includes(choice.population)) names.push(choice.population);
      names.sort((one, other) => one.localeCompare(other));
      known.view = chosen.name;
      known.names = new Set([...names, ...state.newest.map((change) => change.population)]);
      const isWhole = told.all <= told.populations.length;
      const control = el(isWhole ? "select" : "input", { id: "population", ...(isWhole ? {} : { list: "populations", type: "text", autocomplete: "off" }) });
      if (isWhole) {
        control.append(el("option", { value: "" }), ...names.map((name) => el("option", { value: name }, name)));
      } else control.append(el("datalist", { id: "populations" }, ...names.map((name) => el("option", { value: name }))));
      control.value = choice.population || "";
      at("population").replaceWith(control);
      nameAll();
    } finally { known.asking = false; }
  };
  const nameAll = () => {
    const control = at("population");
    if (control.tagName === "SELECT" && control.options.length) control.options[0].text = spoken("All of them");
    else control.setAttribute("placeholder", spoken("All of them"));
  };
  let sought = "";
  const choose = (made, isBack) => {
    choice = made;
    turn += 1;
    if (!isBack) {
      at("choice-note").replaceChildren();
      window.history.pushState(null, "", address());
    }
    // Nothing of what was chosen before is left; a customer is looked for again once the new choice is there.
    if (at("result").firstChild) sought = at("customer").value;
    newest = "";
    shown = {};
    ["result", "newest-table", "views", "contents"].forEach((id) => at(id).replaceChildren());
    at("views-as-of").textContent = "–";
    at("views-note").replaceChildren(word("Being drawn."));
    following.abort();
  };
  const show = (told) => {
    state = told;
    at("told").textContent = instant(new Date().toISOString());
    at("zone").textContent = state.time_zone;
    showChoice();
    showHealth();
    showTiers();
    showNewest();
    if (sought) search(sought);
    sought = "";
  };

  // Pictures: what is new takes the place of what was, and what a reader has opened stays open.
  const showViews = async () => {
    const mine = turn;
    const answer = await ask(`page/views${query(choice)}`, "application/json");
    if (!answer.ok) return;
    const told = await answer.json();
    if (mine !== turn) return;
    at("views-note").replaceChildren(told.note ? inAll(told.note) : "");
    if (told.as_of) at("views-as-of").textContent = instant(told.as_of);
    const places = at("views");
    const pressed = document.querySelector('[data-measure-button][aria-pressed="true"]');
    const measure = pressed ? pressed.getAttribute("data-measure-button") : "customers";
    const keys = told.views.map((view) => view.key);
    let moved = false;
    Object.keys(shown).filter((key) => !keys.includes(key)).forEach((key) => {
      at(key).remove();
      delete shown[key];
      moved = true;
    });
    told.views.forEach((view) => {
      if (shown[view.key] === view.html) return;
      const fresh = el("div");
      fresh.innerHTML = view.html;
      const part = fresh.firstElementChild;
      const before = at(view.key);
      if (before) {
        const open = [...before.querySelectorAll("details")].map((item) => item.open);
        [...part.querySelectorAll("details")].forEach((item, place) => { item.open = Boolean(open[place]); });
        const held = before.contains(document.activeElement) && before !== document.activeElement
          ? [...before.querySelectorAll("button, summary, input, .scroll")].indexOf(document.activeElement) : -1;
        const machine = at("machine");
        const value = machine && before.contains(machine) && machine.value !== machine.getAttribute("value") ? machine.value : null;
        before.replaceWith(part);
        if (value !== null) part.querySelector("#machine").value = value;
        if (held >= 0) { const again = part.querySelectorAll("button, summary, input, .scroll")[held]; if (again) again.focus(); }
      } else places.append(part);
      shown[view.key] = view.html;
      moved = true;
    });
    if (!moved) return;
    at("contents").replaceChildren(...told.views.map((view) => {
      const link = el("a", { href: `#${view.key}` });
      link.innerHTML = view.title;
      return el("li", {}, link);
    }));
    page.choose("measure", measure);
    page.startMachine();
  };

  const status = (told, bad) => {
    at("link").replaceChildren(told);
    at("link").classList.toggle("bad", bad);
  };
  const take = (event) => {
    if (event.name === "state") show(JSON.parse(event.data));
    if (event.name === "views") showViews();
  };
  const follow = async () => {
    const mine = turn;
    const answer = await ask(`page/stream${query(choice)}`, "text/event-stream", { signal: following.signal });
    if (answer.status === 400) {
      // A bookmark of a view that is no more.
      at("choice-note").replaceChildren(word("The view or population that the address names is not there; this is the first view."));
      choose({}, true);
      window.history.replaceState(null, "", address());
      return "";
    }
    if (!answer.ok) return word("The worker answers {status}.", { status: answer.status });
    status(word("Connected."), false);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || mine !== turn) return word("The connection ended; trying again.");
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      blocks.forEach((block) => {
        const event = { name: "message", data: "" };
        block.split("\n").forEach((line) => {
          if (line.startsWith("event: ")) event.name = line.slice(7);
          if (line.startsWith("data: ")) event.data += line.slice(6);
        });
        take(event);
      });
    }
  };
  const run = async () => {
    for (;;) {
      const mine = turn;
      following = new AbortController();
      let said = "";
      try { said = await follow(); } catch { said = word("The worker does not answer; trying again."); }
      // Another choice is followed at once, and anything else is tried again soon.
      if (mine === turn) {
        status(said, true);
        await new Promise((resolve) => { setTimeout(resolve, 1000); });
      }
    }
  };

  const measureRow = (name, value, measure, cutText) => [word(name), value, String(measure.band),
    measure.cuts.length ? el("ul", { class: "cuts" }, ...measure.cuts.map((cut) => el("li", {}, cutText(cut)))) : "–"];
  const cutOf = (reached, text, note) => el("span", {}, reached ? "✓ " : "✗ ", text, " · ", note);
  const explained = (found) => {
    const parts = [];
    const why = found.explain;
    parts.push(el("h3", {}, `${[found.customer_id, found.population].filter(Boolean).join(" · ")}: `, tierNameAndId(found.tier)));
    parts.push(el("h4", {}, word("What holds the tier")));
    const since = el("p", {}, word("In this tier since"), ` ${instant(why.since)}`);
    if (why.reason) since.append(" · ", word(why.reason.replaceAll("_", " ")), why.order_id ? ` ${why.order_id}` : "");
    parts.push(since);
    const reached = (cut, show) => cutOf(cut.is_reached, show(cut.at),
      cut.is_reached ? word("reached") : el("span", {}, word("missing"), ` ${show(cut.missing)}`));
    parts.push(table("Measures beside their cuts, where bands begin", ["Measure", "Value", "Band", "Cuts"], [
      measureRow("Days since the last order", number(why.recency.value), why.recency, (cut) => cutOf(cut.is_reached, `≤ ${cut.at}`,
        cut.until ? el("span", {}, cut.is_reached ? word("until") : word("ended"), ` ${instant(cut.until)}`) : word("no payment"))),
      measureRow("Orders (F)", number(why.frequency.value), why.frequency, (cut) => reached(cut, number)),
      measureRow("Spend (M)", `${money(why.monetary.value)} ${why.currency}`, why.monetary, (cut) => reached(cut, money))]));
    if (why.matched) parts.push(el("p", { class: "muted" }, word("Rule"), ` ${why.matched.number}: ${why.matched.conditions}`));
    parts.push(el("h4", {}, word("When it falls")), el("p", {}, ...(why.next_change_at
      ? [word("If nothing is bought:"), ` ${instant(why.next_change_at)} → `, tierName(why.next_tier)]
      : [word("If nothing is bought, nothing changes any more.")])));
    const within = why.reach.filter((reach) => reach.orders !== null);
    parts.push(el("h4", {}, word("What would lift it")), within.length
      ? table("Tiers that buying now leads to", ["Tier", "Orders needed", "Spending together at least"], within.map((reach) => [
        tierName(reach.tier), number(reach.orders), reach.amount_minor ? `${money(reach.amount_minor)} ${why.currency}` : word("any amount")]))
      : el("p", {}, word("No other tier can be reached by buying now.")));
    if (why.actions.length) {
      parts.push(el("h4", {}, word("What to do"), " ", el("small", { class: "muted" }, why.playbook)), el("ul", { class: "book", lang: "en" },
        ...why.actions.map((action, place) => el("li", {}, inAll([action, why.actions_zh[place] || action, why.actions_zh[place] || action])))));
    }
    parts.push(el("h4", {}, word("Timeline")));
    return parts;
  };
  const said = (...parts) => at("result").replaceChildren(el("p", { class: "note" }, ...parts));
  const refusal = async (answer) => {
    const known = { 404: "No such customer.", 421: "The customer is not here, but perhaps at another worker.", 503: "Recovering; try again soon." }[answer.status];
    said(known ? word(known) : (await answer.text()).trim());
  };
  // A view that parts its customers has one of an id in each population where it bought.
  const populationsOf = async (id) => {
    const answer = await ask(`customers${query({ view: state.view })}`, "application/json", { method: "POST", body: JSON.stringify([id]) });
    if (!answer.ok) { await refusal(answer); return null; }
    return (await answer.json()).customers.sort((one, other) => one.population.localeCompare(other.population));
  };
  const inEach = (id, rows) => [
    el("h3", {}, id),
    el("p", {}, word("In {count} populations, in each a customer of its own. Choose one:", { count: number(rows.length) })),
    table("Populations of this customer", ["Population", "Tier", "Orders (F)", "Spend (M)", "Last order"], rows.map((row) => [
      customerButton(id, row.population, row.population), tierName(row.tier), number(row.frequency), money(row.monetary_minor), instant(row.last_paid_at)]), true)];
  const search = async (id, population = state.population) => {
    const result = at("result");
    const mine = turn;
    result.setAttribute("aria-busy", "true");
    try {
      let where = population;
      if (view() && view().per && !where) {
        const rows = await populationsOf(id);
        if (rows === null || mine !== turn) return;
        if (rows.length === 0) { said(word("No such customer.")); return; }
        if (rows.length > 1) { result.replaceChildren(...inEach(id, rows)); return; }
        where = rows[0].population;
      }
      const asked = query({ view: state.view, population: where });
      const path = `customers/${encodeURIComponent(id)}`;
      const [answer, told] = await Promise.all([ask(`${path}${asked}`, "application/json"), ask(`${path}/changes${asked}`, "application/json")]);
      if (mine !== turn) return;
      if (!answer.ok) { await refusal(answer); return; }
      const found = await answer.json();
      const story = told.ok ? (await told.json()).changes : [];
      const parts = explained(found);
      const heads = CHANGE_HEADS.filter((name) => name !== "Customer" && name !== "Population");
      parts.push(story.length ? table("Timeline", heads, changeRows(story).map((row) => [row[0], ...row.slice(-5)]), true) : el("p", { class: "muted" }, word("No change since the worker started.")));
      if (found.seq > story.length) parts.push(el("p", { class: "muted" }, word(
        "Of {seq} changes, those before the worker started are in the topic of the changes.", { seq: found.seq })));
      result.replaceChildren(...parts);
    } catch {
      said(word("The worker does not answer."));
    } finally { result.removeAttribute("aria-busy"); }
  };
  at("search-form").addEventListener("submit", (event) => { event.preventDefault(); if (at("customer").value) search(at("customer").value); });
  at("choice").addEventListener("submit", (event) => event.preventDefault());
  at("choice").addEventListener("change", (event) => {
    if (event.target.id === "view") choose({ view: at("view").value });
    else choose({ view: at("view").value, population: at("population").value || null });
  });
  window.addEventListener("popstate", () => { readAddress(); choose(choice, true); });
  readAddress();
  run();
})();
