// The live page's script: follows the worker, and asks it for pictures and customers. Nothing comes from elsewhere.
(() => {
  const { words, notes } = JSON.parse(document.getElementById("words").textContent);
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
    const part = document.createDocumentFragment();
    if (id === null || id === undefined) part.append(word("No tier"));
    else if (found) part.append(`${id} `, inAll([found.label_en, found.label_zh, found.label_zh]));
    else part.append(id);
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

  // Whoever is not on loopback shows a token; it stays in this tab.
  const ask = async (path, accept) => {
    const headers = { Accept: accept };
    const token = sessionStorage.getItem("token");
    // A header holds bytes: those of the token in UTF-8.
    if (token) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}`;
    const answer = await fetch(path, { headers, cache: "no-store" });
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
    if (levels.children.length !== 3 * counted.length) {
      levels.replaceChildren(...counted.flatMap((tier) => [el("div", {}, tierName(tier.id)),
        el("div", { class: "track" }, el("div", { class: "fill" })), el("div", { class: "count" })]));
    }
    counted.forEach((tier, place) => {
      levels.children[3 * place + 1].firstChild.style.width = `${(100 * tier.customers) / most}%`;
      levels.children[3 * place + 2].textContent = number(tier.customers);
    });
  };
  let newest = "";
  const changeRows = (changes) => changes.map((change) => [instant(change.effective_at), customerButton(change.customer_id),
    tierName(change.from_tier), tierName(change.to_tier), word(change.reason.replaceAll("_", " ")), number(change.frequency), money(change.monetary_minor)]);
  const CHANGE_HEADS = ["Instant", "Customer", "From", "To", "Reason", "Orders (F)", "Spend (M)"];
  const customerButton = (id) => {
    const made = el("button", { type: "button", class: "link" }, id);
    made.addEventListener("click", () => { at("customer").value = id; search(id); at("search").scrollIntoView(); });
    return made;
  };
  const showNewest = () => {
    const key = state.newest.map((change) => `${change.customer_id} ${change.seq}`).join();
    if (key === newest && at("newest-table").children.length) return;
    newest = key;
    at("newest-table").replaceChildren(state.newest.length
      ? table("Newest tier changes", CHANGE_HEADS, changeRows(state.newest), true) : el("p", { class: "muted" }, word("None since the worker started.")));
  };
  const show = (told) => {
    state = told;
    at("told").textContent = instant(new Date().toISOString());
    showHealth();
    showTiers();
    showNewest();
  };

  // Pictures: what is new takes the place of what was, and what a reader has opened stays open.
  let shown = {};
  const showViews = async () => {
    const answer = await ask("page/views", "application/json");
    if (!answer.ok) return;
    const told = await answer.json();
    at("views-note").replaceChildren(told.note ? inAll(told.note) : "");
    if (told.as_of) at("views-as-of").textContent = instant(told.as_of);
    const places = at("views");
    const pressed = document.querySelector('[data-measure-button][aria-pressed="true"]');
    const measure = pressed ? pressed.getAttribute("data-measure-button") : "customers";
    let moved = false;
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
    const answer = await ask("page/stream", "text/event-stream");
    if (!answer.ok) { status(word("The worker answers {status}.", { status: answer.status }), true); return; }
    status(word("Connected."), false);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
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
      try { await follow(); status(word("The connection ended; trying again."), true); } catch {
        status(word("The worker does not answer; trying again."), true);
      }
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
    }
  };

  const measureRow = (name, value, measure, cutText) => [word(name), value, String(measure.band),
    measure.cuts.length ? el("ul", { class: "cuts" }, ...measure.cuts.map((cut) => el("li", {}, cutText(cut)))) : "–"];
  const cutOf = (reached, text, note) => el("span", {}, reached ? "✓ " : "✗ ", text, " · ", note);
  const explained = (found) => {
    const parts = [];
    const why = found.explain;
    parts.push(el("h3", {}, `${found.customer_id}: `, tierName(found.tier)));
    const since = el("p", {}, word("in this tier since"), ` ${instant(why.since)}`);
    if (why.reason) since.append(" · ", word(why.reason.replaceAll("_", " ")), why.order_id ? ` ${why.order_id}` : "");
    parts.push(since);
    if (why.matched) parts.push(el("p", { class: "muted" }, word("Rule"), ` ${why.matched.number}: ${why.matched.conditions}`));
    const reached = (cut, show) => cutOf(cut.is_reached, show(cut.at),
      cut.is_reached ? word("reached") : el("span", {}, word("missing"), ` ${show(cut.missing)}`));
    parts.push(table("Measures beside their cuts", ["Measure", "Value", "Band", "Cuts"], [
      measureRow("Days since the last order", number(why.recency.value), why.recency, (cut) => cutOf(cut.is_reached, `${cut.at}`,
        cut.until ? el("span", {}, cut.is_reached ? word("until") : word("ended"), ` ${instant(cut.until)}`) : word("no payment"))),
      measureRow("Orders (F)", number(why.frequency.value), why.frequency, (cut) => reached(cut, number)),
      measureRow("Spend (M)", `${money(why.monetary.value)} ${why.currency}`, why.monetary, (cut) => reached(cut, money))]));
    parts.push(el("p", {}, why.next_change_at
      ? el("span", {}, word("Without an order, from"), ` ${instant(why.next_change_at)}: `, tierName(why.next_tier))
      : word("Without an order nothing changes any more.")));
    parts.push(table("Buying now could reach", ["Tier", "Further orders", "Of at least, together"], why.reach.map((reach) => [tierName(reach.tier),
      reach.orders === null ? word("out of reach") : number(reach.orders), reach.amount_minor === null ? "–" : money(reach.amount_minor)])));
    if (why.actions.length) {
      parts.push(el("h3", {}, word("Playbook"), `: ${why.playbook}`), el("ul", { class: "book", lang: "en" }, ...why.actions.map((action, place) => el("li", {}, inAll([action, why.actions_zh[place] || action, why.actions_zh[place] || action])))));
    }
    return parts;
  };
  const search = async (id) => {
    const result = at("result");
    result.setAttribute("aria-busy", "true");
    try {
      const answer = await ask(`customers/${encodeURIComponent(id)}`, "application/json");
      if (!answer.ok) {
        const said = (await answer.text()).trim();
        const known = { 404: "No such customer.", 421: "The customer is not here, but perhaps at another worker.", 503: "Recovering; try again soon." }[answer.status];
        result.replaceChildren(el("p", { class: "note" }, inAll([said, ...(words[known] || [said, said])])));
        return;
      }
      const found = await answer.json();
      const told = await ask(`customers/${encodeURIComponent(id)}/changes`, "application/json");
      const story = told.ok ? (await told.json()).changes : [];
      const parts = explained(found);
      parts.push(story.length ? table("Timeline", CHANGE_HEADS.filter((_, place) => place !== 1), changeRows(story).map((row) => row.filter((_, place) => place !== 1))) : el("p", { class: "muted" }, word("No change since the worker started.")));
      if (found.seq > story.length) parts.push(el("p", { class: "muted" }, word(
        "Of {seq} changes, those before the worker started are in the topic of the changes.", { seq: found.seq })));
      result.replaceChildren(...parts);
    } catch {
      result.replaceChildren(el("p", { class: "note" }, word("The worker does not answer.")));
    } finally { result.removeAttribute("aria-busy"); }
  };
  at("search-form").addEventListener("submit", (event) => { event.preventDefault(); if (at("customer").value) search(at("customer").value); });
  run();
})();
