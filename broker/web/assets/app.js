// What makes the pages live. Everything here adds to pages that are complete without it: parts are kept fresh over one stream,
// times are kept going, keys and questions before dangerous things. No framework; htmx swaps the list of tasks in place.
(() => {
  "use strict";
  const root = document.documentElement;
  const base = document.body.dataset.base;
  const byId = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function store(key, value) {
    // Storage may be forbidden; then the choice lasts for this page.
    try { localStorage.setItem(key, value); } catch { /* as said */ }
  }

  // ------------------------------------------------------------------------------------------------------------ parts

  let stream = null;
  let heard = null;
  let chart = null;

  // The list of tasks is swapped without a new page, and says itself what it shows.
  const live = () => (byId("list") || document.body).dataset.live;

  function listen() {
    if (stream && heard !== live()) hush();
    if (stream || document.hidden || !window.EventSource) return;
    heard = live();
    stream = new EventSource(`${base}/events?page=${encodeURIComponent(heard)}`);
    stream.onopen = () => root.classList.remove("cut");
    stream.onerror = () => root.classList.add("cut");
    stream.onmessage = (event) => {
      const message = JSON.parse(event.data);
      for (const [id, html] of Object.entries(message.parts)) replace(byId(id), html);
      follow();
      if (message.rates) point(message.rates);
      root.dataset.beats = Number(root.dataset.beats || 0) + 1;
    };
  }

  // The rest of a task's page, its result above all, changes with its state alone, and is fetched then.
  const stateOf = () => document.querySelector("#p-task .chip")?.textContent;
  let state = stateOf();

  async function follow() {
    const rest = byId("task-rest");
    if (!rest || stateOf() === state) return;
    const before = state;
    state = stateOf();
    try {
      const answer = await fetch(location.href);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      replace(rest, page.getElementById("task-rest").innerHTML);
    } catch {
      // With the next message again.
      state = before;
    }
  }

  function hush() {
    if (stream) stream.close();
    stream = null;
    held.clear();
  }

  // What is the same stays the same node: a press that has begun, the focus and a half typed value survive. While a question is
  // open nothing is replaced: the button that asked must still be in its form when the answer comes. And rows stay where they are
  // while somebody is about to do something with one of them.
  const held = new Map();

  function isUsed(element) {
    const focus = document.activeElement;
    return document.querySelector("dialog[open]") || element.querySelector("tr.here, input[name=task]:checked, details[open]")
      || (element.id === "list" && element.contains(focus) && focus.matches("input:not([type=checkbox]), select"));
  }

  function replace(element, html) {
    if (!element) return;
    if (isUsed(element)) {
      held.set(element.id, html);
      return;
    }
    held.delete(element.id);
    const next = document.createElement("template");
    next.innerHTML = html;
    children(element, next.content);
    // Links that are new or lead elsewhere now are to swap the list in place too.
    if (element.id === "list") window.htmx?.process(element);
    ask(element);
    tick();
  }

  function children(from, to) {
    if (to.firstElementChild?.dataset.key) return rows(from, to);
    const [old, fresh] = [[...from.childNodes], [...to.childNodes]];
    fresh.forEach((node, n) => (n < old.length ? morph(old[n], node) : from.append(node)));
    old.slice(fresh.length).forEach((node) => node.remove());
  }

  // Rows with a key are moved and not rewritten: what is pressed stays the row of its task while others come above it.
  function rows(from, to) {
    const known = new Map([...from.children].map((row) => [row.dataset.key, row]));
    const fresh = [...to.children];
    const keys = new Set(fresh.map((row) => row.dataset.key));
    for (const [key, row] of known) if (!keys.has(key)) row.remove();
    fresh.forEach((row, n) => {
      const [at, old] = [from.children[n] ?? null, known.get(row.dataset.key)];
      if (old !== at || !old) from.insertBefore(old ?? row, at);
      if (old) morph(old, row);
    });
  }

  function morph(from, to) {
    if (from.nodeName !== to.nodeName) return from.replaceWith(to);
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    for (const { name } of [...from.attributes]) if (!to.hasAttribute(name)) from.removeAttribute(name);
    for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    children(from, to);
  }

  function release() {
    for (const [id, html] of [...held]) replace(byId(id), html);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
  window.addEventListener("pagehide", hush);
  window.addEventListener("pageshow", listen);

  setInterval(release, 1000);

  // ------------------------------------------------------------------------------------------------------------ times

  const UNITS = [[86400000, "d", 3600000, "h"], [3600000, "h", 60000, "min"], [60000, "min", 1000, "s"]];

  function span(ms) {
    if (ms < 1000) return `${ms} ms`;
    if (ms < 10000) return `${Math.floor(ms / 1000)} s`;
    if (ms < 60000) return `${Math.floor(ms / 1000)} s`;
    const [size, unit, smaller, word] = UNITS.find(([size]) => ms >= size);
    const large = Math.floor(ms / size);
    const small = Math.floor((ms % size) / smaller);
    return large >= 10 || small === 0 ? `${large} ${unit}` : `${large} ${unit} ${small} ${word}`;
  }

  function tick() {
    const now = Date.now();
    for (const element of all("time[data-at]")) {
      const passed = now - Number(element.dataset.at);
      const text = Math.abs(passed) < 1000 ? "just now" : passed < 0 ? `in ${span(-passed)}` : `${span(passed)} ago`;
      if (element.textContent !== text) element.textContent = text;
    }
  }

  setInterval(() => { if (!document.hidden) tick(); }, 1000);

  // ------------------------------------------------------------------------------------------------------------ chart

  function color(name) {
    const probe = document.createElement("i");
    probe.className = name;
    probe.hidden = true;
    document.body.append(probe);
    const value = getComputedStyle(probe).backgroundColor;
    probe.remove();
    return value;
  }

  function draw() {
    const place = byId("chart");
    if (!place || !window.uPlot) return;
    if (chart) chart.destroy();
    const data = columns(JSON.parse(place.dataset.rates || "[]"));
    const line = (label, name, fill) => ({ label, stroke: color(name), width: 1.5, points: { show: false }, fill: fill && faint(color(name)) });
    const ink = getComputedStyle(document.body).color;
    const grid = { stroke: "rgba(128, 138, 155, 0.16)", width: 1 };
    const axis = { stroke: ink, grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    chart = new window.uPlot({
      width: place.clientWidth - 8,
      height: 186,
      padding: [4, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false } },
      scales: { x: { range: () => { const now = Date.now() / 1000; return [now - 300, now]; } }, y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
      axes: [{ ...axis, space: 80, size: 28, values: (_, at) => at.map((s) => new Date(s * 1000).toTimeString().slice(0, 5)) }, { ...axis, size: 56, values: (_, at) => at.map((n) => n.toLocaleString("en")) }],
      series: [{}, line("done", "l-done", true), line("submitted", "l-submitted"), line("failed", "l-failed")],
    }, data, place);
  }

  const faint = (rgb) => rgb.replace("rgb(", "rgba(").replace(")", ", 0.1)");

  // Every ten seconds at least there is a point: longer than that the broker was away, and that is a gap and no line.
  function columns(rates) {
    const rows = [];
    for (const r of rates) {
      const last = rows.at(-1);
      if (last && r.at - last[0] > 15) rows.push([last[0] + 1, null, null, null]);
      rows.push([r.at, r.done, r.submitted, r.failed]);
    }
    return [0, 1, 2, 3].map((n) => rows.map((row) => row[n]));
  }

  function point(rates) {
    const place = byId("chart");
    if (!place) return;
    const known = JSON.parse(place.dataset.rates || "[]");
    if (!known.length || known.at(-1).at < rates.at) known.push(rates);
    while (known.length > 300) known.shift();
    place.dataset.rates = JSON.stringify(known);
    if (!chart) return draw();
    chart.setData(columns(known));
  }

  window.addEventListener("resize", () => chart && chart.setSize({ width: byId("chart").clientWidth - 8, height: 186 }));

  // -------------------------------------------------------------------------------------------------------- questions

  // A press of a dangerous button asks first; without this script the page that follows does.
  const asking = new WeakSet();

  function ask(within) {
    for (const button of all("button[data-confirm]", within)) {
      if (asking.has(button)) continue;
      asking.add(button);
      let isSure = false;
      button.addEventListener("click", (event) => {
        if (isSure || !button.dataset.confirm) return;
        event.preventDefault();
        const dialog = byId("confirm");
        byId("confirm-text").textContent = button.dataset.confirm;
        byId("confirm-yes").textContent = `Yes, ${button.textContent.trim().toLowerCase()}`;
        dialog.returnValue = "no";
        dialog.addEventListener("close", () => {
          if (dialog.returnValue !== "yes") {
            release();
            return button.focus();
          }
          isSure = true;
          const sure = document.createElement("input");
          Object.assign(sure, { type: "hidden", name: "confirmed", value: "1" });
          button.form.append(sure);
          button.form.requestSubmit(button);
        }, { once: true });
        dialog.showModal();
      });
    }
  }

  function toast(text) {
    const element = byId("toast");
    element.textContent = text;
    element.classList.add("on");
    setTimeout(() => element.classList.remove("on"), 1600);
  }

  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      try {
        await navigator.clipboard.writeText(byId(copy.dataset.copy).textContent);
        toast("Copied");
      } catch {
        getSelection().selectAllChildren(byId(copy.dataset.copy));
        toast("Selected: press Ctrl+C");
      }
    }
    for (const open of all("details.pop[open]")) if (!open.contains(event.target)) open.open = false;
  });

  // -------------------------------------------------------------------------------------------------------- selection

  document.addEventListener("change", (event) => {
    if (event.target.id === "check-all") for (const box of boxes()) box.checked = event.target.checked;
    count();
  });

  const boxes = () => all("#selection input[name=task]");

  function count() {
    const element = byId("selected");
    if (element) element.textContent = boxes().filter((box) => box.checked).length;
  }

  // ------------------------------------------------------------------------------------------------------------- keys

  let before = "";

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (event.key === "Escape") isTyping ? event.target.blur() : here()?.classList.remove("here");
    if (isTyping || document.querySelector("dialog[open]")) return;
    const after = before;
    before = "";
    if (after === "g") {
      const link = document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    const keys = {
      "?": () => byId("help").showModal(),
      "/": () => (byId("filter") || byId("jump")).focus(),
      g: () => { before = "g"; },
      j: () => move(1),
      k: () => move(-1),
      x: () => { const box = here()?.querySelector("input[type=checkbox]"); if (box) { box.checked = !box.checked; count(); } },
      n: () => byId("older")?.click(),
      r: () => location.reload(),
      Enter: () => (event.target === document.body ? here()?.querySelector("a")?.click() : null),
    };
    if (!Object.hasOwn(keys, event.key)) return;
    if (event.key !== "Enter") event.preventDefault();
    keys[event.key]();
  });

  const here = () => document.querySelector("tr.here");

  function move(step) {
    const rows = all("tr[data-row]");
    if (!rows.length) return;
    const at = rows.indexOf(here());
    const next = rows[Math.min(Math.max(at + step, 0), rows.length - 1)];
    rows[at]?.classList.remove("here");
    next.classList.add("here");
    next.scrollIntoView({ block: "nearest" });
  }

  // ------------------------------------------------------------------------------------------------------------ start

  byId("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    store("laneway-theme", root.dataset.theme);
    draw();
  });
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  document.addEventListener("htmx:afterSettle", () => { ask(document); count(); tick(); listen(); });
  ask(document);
  count();
  tick();
  listen();
  window.addEventListener("load", draw);
})();
