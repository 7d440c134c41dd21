// The page, put together: what is asked of the model, what is shown of its answer, and the keys.
//
// A host says where answers come from: { about, ask, view, text }. `ask(question, signal)` gives a view as plain data, or
// throws an error with `what` and `remedy`; without it the page shows `view` and asks nothing.

import { createArcs } from "./arcs.js";
import { createCandidates, createSteps } from "./candidates.js";
import { decode, habits, telling } from "./data.js";
import { h, percent, short } from "./dom.js";
import { figure } from "./figure.js";
import { createForm } from "./form.js";
import { createGrid } from "./grid.js";
import { createHelp } from "./help.js";
import { bindKeys } from "./keys.js";
import { createLens } from "./lens.js";
import { createMatrix } from "./matrix.js";
import { createOutput } from "./output.js";
import { currentMap, headKey, store as createStore } from "./state.js";
import { createStrips } from "./strip.js";

const THEMES = ["auto", "light", "dark"];
const STEP = 700;

function pick({ layer, head }) {
  return { layer, head };
}

function message(error) {
  return { what: error.what ?? "the page has met an error of its own", remedy: error.remedy ?? String(error.message ?? error) };
}

export function mount(root, host) {
  const { about } = host;
  const store = createStore({
    status: "empty", error: null, view: null, baseline: null, text: host.text ?? "", chat: false, tokens: 16, chosen: [],
    target: null,
    map: about.maps[0][0], layer: 0, head: 0, off: new Set(), cursor: null, focus: null, playing: false,
    shape: "both", theme: "auto", look: "light", width: 0, picked: false,
  });
  const { state } = store;
  let running = null;
  let timer = null;
  let baselineKey = "";
  let quick = false;
  let fetching = false;

  // --- asking ------------------------------------------------------------------------------------------------------

  function question(patch = {}) {
    const silenced = [...state.off].map((key) => {
      const [map, layer, head] = key.split(".");
      return { map, layer: Number(layer), head: Number(head) };
    });
    const asked = { text: state.text, chat: state.chat, tokens: state.tokens, forced: state.chosen, silenced };
    // A translation to read along: until another text is typed, or another word chosen.
    return { ...asked, target: state.target, ...patch };
  }

  /** What a view must share with another one to be compared with it. */
  function keyOf(asked) {
    return JSON.stringify([asked.text, asked.target ?? null, asked.chat, asked.tokens, asked.forced]);
  }

  async function ask(patch = {}, kept = {}) {
    if (!host.ask) return;
    running?.abort();
    const mine = new AbortController();
    running = mine;
    if (!state.text.trim()) {
      store.set({ status: "empty", view: null, baseline: null, error: null, cursor: null, focus: null });
      return;
    }
    store.set({ status: "loading" });
    const begun = performance.now();
    try {
      const asked = question(patch);
      const view = await decode(await host.ask(asked, mine.signal));
      if (mine.signal.aborted) return;
      quick = performance.now() - begun < 700;
      show(view, asked, kept);
      if (state.off.size > 0 && baselineKey !== keyOf(asked)) {
        const whole = { ...asked, silenced: [] };
        const baseline = await decode(await host.ask(whole, mine.signal));
        if (mine.signal.aborted) return;
        baselineKey = keyOf(asked);
        store.set({ baseline });
      }
    } catch (error) {
      if (mine.signal.aborted) return;
      store.set({ status: "error", error: message(error), playing: false });
    } finally {
      if (running === mine) running = null;
    }
  }

  function show(view, asked, kept = {}) {
    const map = view.map(state.map);
    const whole = state.off.size === 0;
    const { layer, head } = state.view || state.picked ? state : telling(map);
    if (whole) baselineKey = keyOf(asked);
    store.set({
      view, status: "ready", error: null, map: map.name, focus: null,
      layer: Math.min(layer, map.layers - 1), head: Math.min(head, map.heads - 1), picked: true,
      baseline: whole ? view : baselineKey === keyOf(asked) ? state.baseline : null,
      cursor: state.cursor !== null && state.cursor > view.lastStep ? null : state.cursor,
      ...kept,
    });
  }

  // --- what can be done --------------------------------------------------------------------------------------------

  const actions = {
    ask: (text) => {
      if (text !== state.text) store.set({ chosen: [], target: null, cursor: null, playing: false });
      store.set({ text });
      return ask();
    },
    change: (patch) => {
      store.set({ ...patch, chosen: [], cursor: null });
      if (state.view) ask();
    },
    get live() {
      return quick;
    },
    select: (map, layer, head) => store.set({ map, layer, head, focus: null }),
    /** Another kind of attention, at its most telling head. */
    turn: (name) => {
      const map = state.view?.map(name);
      if (map && map.name !== state.map) store.set({ map: name, ...pick(telling(map)), focus: null });
    },
    toggle: (map, layer, head) => {
      const off = new Set(state.off);
      const key = headKey(map, layer, head);
      if (!off.delete(key)) off.add(key);
      store.set({ off, map, layer, head });
      ask();
    },
    toggleLayer: () => {
      const map = currentMap(state);
      if (!map || !host.ask) return;
      const off = new Set(state.off);
      const keys = [...Array(map.heads).keys()].map((head) => headKey(map.name, state.layer, head));
      const all = keys.every((key) => off.has(key));
      for (const key of keys) all ? off.delete(key) : off.add(key);
      store.set({ off });
      ask();
    },
    allOn: () => {
      if (state.off.size === 0) return;
      store.set({ off: new Set() });
      ask();
    },
    /** Go on with another candidate: what was written up to it stays. */
    choose: host.ask && ((at, candidate) => {
      const { view } = state;
      const chosen = [...view.madeIds.slice(0, at - view.firstStep), candidate.id];
      const tokens = view.sequences.target ? state.tokens : Math.max(1, state.tokens);
      store.set({ chosen, tokens, target: null });
      ask({}, { cursor: at });
    }),
    go: (at) => {
      if (state.view.writes && at < state.view.firstStep) return;
      store.set({ cursor: at, focus: null });
    },
    step: (by) => {
      const { view, cursor } = state;
      if (!view?.writes) return;
      if (by === "all") store.set({ cursor: null, playing: false, focus: null });
      else if (by === "first") store.set({ cursor: view.firstStep, focus: null });
      else if (cursor === null) store.set({ cursor: by > 0 ? view.firstStep : view.lastStep, focus: null });
      else if (cursor + by < view.firstStep) return;
      else if (cursor + by <= view.lastStep) store.set({ cursor: cursor + by, focus: null });
      else if (host.ask && view.sequences.text && !view.output.complete) {
        // One token more: what is there need not be searched again.
        if (running) return;
        store.set({ tokens: Math.min(256, view.madeIds.length + 1 - state.chosen.length) });
        ask({ forced: view.madeIds, tokens: 1 }, { cursor: cursor + by });
      } else store.set({ cursor: null, playing: false, focus: null });
    },
    play: () => store.set({ playing: !state.playing && Boolean(state.view?.writes) }),
    /** The lens of a long text holds some positions; fetch those around `at`. */
    lensAt: async (at) => {
      if (!host.ask || running || fetching) return;
      fetching = true;
      const { view } = state;
      try {
        const from = Math.max(0, at - Math.floor(view.lens.cells[0].length / 2));
        const end = view.predictions.get(view.lastStep)?.chosen;
        const forced = end && view.output.complete ? [...view.madeIds, end.id] : view.madeIds;
        const { lens } = await decode(await host.ask(question({ forced, target: null, tokens: 0, lens_from: from })));
        // Only what was asked for: otherwise this would be asked again, and again.
        const holds = lens.first <= at && at < lens.first + lens.cells[0].length;
        if (state.view === view && holds) store.set({ view: { ...view, lens } });
      } catch (error) {
        store.set({ status: "error", error: message(error) });
      } finally {
        fetching = false;
      }
    },
    theme: () => store.set({ theme: THEMES[(THEMES.indexOf(state.theme) + 1) % THEMES.length] }),
    shape: (shape) => store.set({ shape }),
  };

  // --- the parts ---------------------------------------------------------------------------------------------------

  const main = h("div", { class: "main", hidden: true });
  // Told first: what is to be drawn must have its place, to be measured.
  store.on((now, has) => {
    if (has("view", "status")) main.hidden = !now.view;
    if (has("shape")) page.dataset.shape = now.shape;
  });
  const form = createForm(store, actions, host);
  const strips = createStrips(store);
  const grid = createGrid(store, actions, Boolean(host.ask));
  const arcs = createArcs(store);
  const matrix = createMatrix(store);
  const help = createHelp();
  const headTitle = h("h2", {});
  const headFacts = h("span", { class: "hint" });
  const power = h("button", { type: "button", class: "switch", role: "switch", onclick: () => actions.toggle(state.map, state.layer, state.head) });
  const shapes = h("div", { class: "tabs shapes", role: "group", "aria-label": "Drawn as" },
    [["both", "Both"], ["arcs", "Arcs"], ["matrix", "Matrix"]].map(([shape, name]) =>
      h("button", { type: "button", "data-shape": shape, onclick: () => actions.shape(shape) }, name)));
  const large = h(
    "section",
    { class: "panel large-panel", "aria-label": "One head" },
    h("header", {}, headTitle, host.ask ? power : null, headFacts, shapes),
    h("div", { class: "large" }, arcs, matrix),
  );
  const allOn = h("button", { type: "button", class: "all-on", onclick: actions.allOn, hidden: true });
  const theme = h("button", { type: "button", class: "icon theme", onclick: actions.theme });
  const bar = h("div", { class: "progress", role: "progressbar", "aria-label": "The model is at work", hidden: true });
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const sizes = about.maps.map(([, title, layers, heads]) => `${about.maps.length > 1 ? `${title.toLowerCase()} ` : ""}${layers} × ${heads} heads`);
  const top = h(
    "header",
    { class: "top" },
    h("span", { class: "mark", "aria-hidden": "true" }), h("b", { class: "name" }, "sublayer"),
    h("span", { class: "model" }, about.name),
    h("span", { class: "facts" }, [about.kind, ...sizes, `${short(about.parameters)} parameters`].join(" · ")),
    h("span", { class: "space" }),
    host.ask ? null : h("span", { class: "recorded", title: "sublayer inspect MODEL lets you type your own text" }, "a recorded view"), theme,
    h("button", { type: "button", class: "icon", title: "keys (?)", "aria-label": "keys", onclick: () => help.toggle() }, "?"),
  );
  const empty = h("div", { class: "empty" });
  const result = h("section", { class: "panel text-panel", "aria-label": "The text" }, strips,
    h("div", { class: "under" }, createSteps(store, actions), createOutput(store), allOn));
  main.append(result, h("div", { class: "columns" },
    h("div", { class: "column" }, grid.element, createCandidates(store, actions)),
    h("div", { class: "column" }, large, createLens(store, actions))));
  const page = h("div", { class: `sublayer${host.whole ? " whole" : ""}`, tabindex: "-1" }, bar, top, form.element, problem, empty, main, help.element);
  root.replaceChildren(page);

  const scheme = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
  function look() {
    const notebook = document.body.dataset.jpThemeLight;
    const dark = notebook ? notebook === "false" : scheme?.matches;
    store.set({ look: state.theme === "auto" ? (dark ? "dark" : "light") : state.theme });
  }
  scheme?.addEventListener("change", look);

  store.on((now, has) => {
    if (has("theme")) look();
    if (has("look", "theme")) {
      page.dataset.look = now.look;
      theme.textContent = { auto: "◐", light: "☀", dark: "☾" }[now.theme];
      theme.title = `theme: ${now.theme} (t)`;
      theme.setAttribute("aria-label", theme.title);
    }
    if (has("status", "error")) {
      page.dataset.status = now.status;
      bar.hidden = now.status !== "loading";
      problem.hidden = now.status !== "error";
      problem.replaceChildren(...(now.error ? [h("b", {}, sentence(now.error.what)), h("span", {}, now.error.remedy)] : []));
    }
    if (has("status", "view")) {
      const nothing = !now.view;
      empty.hidden = !nothing;
      empty.replaceChildren(...(nothing && now.status === "loading" ? waiting() : invitation()));
    }
    if (has("shape")) {
      for (const button of shapes.children) button.setAttribute("aria-pressed", String(button.dataset.shape === now.shape));
    }
    if (has("view", "map", "layer", "head", "off")) {
      const map = currentMap(now);
      const on = !now.off.has(headKey(now.map, now.layer, now.head));
      headTitle.textContent = `Layer ${now.layer}, head ${now.head}`;
      power.setAttribute("aria-checked", String(on));
      power.textContent = on ? "on" : "off";
      power.title = `switch the head ${on ? "off" : "on"} (x)`;
      large.classList.toggle("off", !on);
      headFacts.textContent = map ? summary(map, now.layer, now.head) : "";
      allOn.hidden = now.off.size === 0;
      allOn.textContent = `all heads on (${now.off.size} off)`;
    }
    if (has("playing")) {
      clearInterval(timer);
      if (now.playing) {
        if (now.cursor === null || now.cursor === now.view.lastStep) actions.step("first");
        timer = setInterval(() => actions.step(1), STEP);
      }
    }
    if (has("view") && now.view) performance.mark("sublayer-view");
  });

  function sentence(text) {
    return /[.?!]$/.test(text) ? text : `${text}.`;
  }

  function summary(map, layer, head) {
    const { shares, entropy } = habits(map, layer, head);
    const [[name, share]] = shares;
    return [share >= 0.3 ? `${percent(share)} ${name}` : null, `entropy ${entropy.toFixed(1)} bits`].filter(Boolean).join(" · ");
  }

  function invitation() {
    const doing = {
      translate: "Type a sentence, and see what the model looks at to translate it.",
      generate: "Type the beginning of a text, and see what the model looks at to go on.",
      fill: "Type a sentence with [MASK] in the place of a word.",
    }[about.task] ?? "Type a sentence, and see what each token looks at.";
    return [
      figure(false),
      h("p", {}, doing),
      h("p", { class: "chips" }, about.examples.map((text) =>
        h("button", { type: "button", class: "chip", dir: "auto", onclick: () => form.take(text) }, text))),
    ];
  }

  function waiting() {
    return [figure(true), h("p", {}, "The model reads …")];
  }

  bindKeys(page, { store, actions, form, grid, help, host });

  store.set({ width: page.clientWidth });
  let settling = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(settling);
    settling = requestAnimationFrame(() => store.set({ width: page.clientWidth }));
  }).observe(page);

  // Draw the beginning: every part is told that all is new.
  look();
  store.set({ status: host.view ? "loading" : "empty", theme: host.theme ?? "auto" });
  store.announce();
  if (host.view) {
    decode(host.view).then(
      (view) => {
        const silenced = view.question.silenced.map((one) => headKey(one.map, one.layer, one.head));
        const { text, target, chat, tokens, forced } = view.question;
        store.set({ text, target, chat, tokens, chosen: forced, off: new Set(silenced) });
        show(view, view.question);
      },
      (error) => store.set({ status: "error", error: message(error) }),
    );
  } else if (state.text) ask();
  return { store, actions };
}
