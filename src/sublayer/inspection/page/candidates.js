// Step by step: what the model held for possible at a position, how surely, and what was taken.

import { h, percent } from "./dom.js";
import { tick } from "./output.js";
import { activeRow, currentMap } from "./state.js";

/** The position whose candidates are shown: under the pointer, at the step, or where it is most telling. */
export function position(state) {
  const { view } = state;
  const map = currentMap(state);
  if (state.focus && map && !(view.writes && map.name === "encoder") && activeRow(state) !== null) return activeRow(state);
  if (state.cursor !== null) return state.cursor;
  if (view.output.type === "words") return view.output.masks[0] ?? view.sequences.text.length - 1;
  return view.sequences.target ? view.firstStep : view.lastStep;
}

function before(view, at) {
  const tokens = view.sequences.target ?? view.sequences.text;
  const shown = tokens.slice(Math.max(0, at - 5), at + 1);
  const cut = at > 5 ? "… " : "";
  return cut + shown.map((token, place) => (token.glued || place === 0 ? "" : " ") + token.text).join("");
}

/** Whether two views were fed the same up to a position, so that their candidates may be compared. */
function comparable(view, other, at) {
  const [ids, others] = [view, other].map((one) => (one.sequences.target ?? one.sequences.text).slice(0, at + 1));
  return ids.length === others.length && ids.every((token, place) => token.id === others[place].id);
}

export function createCandidates(store, actions) {
  const body = h("div", { class: "candidates" });
  const title = h("h2", {}, "Candidates");
  const element = h("section", { class: "panel candidate-panel", "aria-label": "Candidates" }, h("header", {}, title), body);

  function draw(state) {
    const { view, baseline, off } = state;
    const at = view && position(state);
    const prediction = view?.predictions.get(at);
    element.hidden = !view || view.predictions.size === 0;
    if (!prediction) {
      body.replaceChildren();
      return;
    }
    const fills = view.output.type === "words";
    title.textContent = view.sequences.target ? "Next word" : fills ? "Word here" : "Next token";
    const was = off.size && baseline && (fills || comparable(view, baseline, at)) ? baseline.predictions.get(at) : null;
    const earlier = new Map((was?.candidates ?? []).map((one) => [one.id, one.probability]));
    const known = new Set(prediction.candidates.map((one) => one.id));
    const { chosen } = prediction;
    const list = chosen && !known.has(chosen.id) ? [...prediction.candidates.slice(0, -1), chosen] : prediction.candidates;
    const rest = Math.max(0, 1 - list.reduce((sum, one) => sum + one.probability, 0));
    const choosable = view.writes && actions.choose && at >= view.firstStep;
    const rows = list.map((one) => {
      const bar = h("span", { class: "bar" });
      bar.style.setProperty("--share", one.probability);
      if (earlier.has(one.id)) bar.append(tick(earlier.get(one.id)));
      const taken = chosen?.id === one.id;
      return h(
        "li",
        { class: taken ? "taken" : null },
        h(
          choosable ? "button" : "div",
          {
            class: "candidate",
            type: choosable ? "button" : null,
            title: choosable ? "go on with this one" : null,
            onclick: choosable ? () => actions.choose(at, one) : null,
          },
          h("span", { class: "name", dir: "auto" }, one.text), bar, h("span", { class: "number" }, percent(one.probability)),
        ),
      );
    });
    body.replaceChildren(
      h("p", { class: "context", dir: "auto" }, fills ? `in the place of “${view.sequences.text[at].text}”` : `after “${before(view, at)}”`),
      h("ol", { class: "bars" }, rows),
      h("p", { class: "facts" }, [
        `the rest: ${percent(rest)}`,
        chosen && prediction.rank > 0 ? ` · taken: number ${prediction.rank + 1}` : "",
        choosable ? " · click one to go on with it" : "",
      ].join("")),
    );
  }

  store.on((state, has) => {
    if (has("view", "baseline", "cursor", "focus", "map")) draw(state);
  });
  return element;
}

export function createSteps(store, actions) {
  const label = h("output", { class: "where" });
  const button = (name, title, sign, act) => h("button", { type: "button", class: "icon", "data-step": name, title, "aria-label": title, onclick: act }, sign);
  const play = button("play", "play (space)", "▶", () => actions.play());
  const element = h(
    "div",
    { class: "steps", role: "group", "aria-label": "Generation, step by step" },
    button("first", "to the first step (Home)", "⇤", () => actions.step("first")),
    button("back", "a step back (,)", "←", () => actions.step(-1)),
    label,
    button("on", "a step on (.)", "→", () => actions.step(1)),
    play,
    button("all", "the whole (End)", "⇥", () => actions.step("all")),
  );
  store.on((state, has) => {
    if (!has("view", "cursor", "playing")) return;
    const { view, cursor } = state;
    element.hidden = !view?.writes;
    if (element.hidden) return;
    const steps = view.lastStep - view.firstStep + 1;
    label.textContent = cursor === null ? `${steps} steps` : `step ${cursor - view.firstStep + 1} of ${steps}`;
    play.textContent = state.playing ? "❚❚" : "▶";
    play.setAttribute("aria-pressed", String(state.playing));
  });
  return element;
}
