// The texts as words that can be pointed at: what was read, and what was written. Their shade is the attention of the
// row that stands out.

import { h } from "./dom.js";
import { placeOf } from "./data.js";
import { activeColumn, activeRow, currentMap, known } from "./state.js";

const CAPTIONS = { source: "Reads", target: "Writes", text: "Text" };

/** The tokens of a strip; the target's with the end marker, which is predicted and never fed. */
export function stripTokens(view, name) {
  if (name !== "target") return view.sequences[name];
  return [view.sequences.target[0], ...view.sequences.predicted];
}

export function createStrips(store) {
  const element = h("div", { class: "strips" });
  let strips = [];

  function point(name, place) {
    const map = currentMap(store.state);
    if (!map) return;
    const at = (sequence) => (sequence === "predicted" ? place - 1 : place);
    const fits = (sequence, count) => placeOf(sequence, 0)[0] === name && at(sequence) >= 0 && at(sequence) < count;
    const row = fits(map.rows, map.rowCount) ? at(map.rows) : null;
    const column = fits(map.columns, map.columnCount) ? at(map.columns) : null;
    if (row !== null) store.set({ focus: { row } });
    else if (column !== null) store.set({ focus: { column } });
  }

  function choose(name, place) {
    const { view } = store.state;
    if (view.writes) {
      // To the step at which this token was chosen.
      if (name === "source" || place < view.made) return;
      store.set({ cursor: place - 1, focus: null });
    } else store.set({ cursor: store.state.cursor === place ? null : place, focus: null });
  }

  function build(view) {
    const names = view.sequences.source ? ["source", "target"] : ["text"];
    strips = names.map((name) => {
      const tokens = stripTokens(view, name);
      const chips = tokens.map((token, place) => {
        const made = view.writes && name !== "source" && place >= view.made;
        const chip = h(
          made || !view.writes ? "button" : "span",
          {
            class: `token ${token.kind}${token.glued ? " glued" : ""}${made ? " made" : ""}`,
            type: made || !view.writes ? "button" : null,
            tabindex: made || !view.writes ? "-1" : null,
            title: token.kind === "unknown" ? "not in the vocabulary" : null,
            "data-place": place,
            onpointerenter: () => point(name, place),
            onclick: () => choose(name, place),
          },
          token.text,
        );
        return chip;
      });
      const words = h("div", { class: "words", "data-strip": name, dir: "auto" }, chips);
      words.addEventListener("pointerleave", () => store.set({ focus: null }));
      return { name, chips, row: h("div", { class: "strip" }, h("span", { class: "caption" }, CAPTIONS[name]), words) };
    });
    element.replaceChildren(...strips.map((strip) => strip.row));
  }

  function shade(state) {
    const map = currentMap(state);
    const row = activeRow(state);
    const column = activeColumn(state);
    for (const { name, chips } of strips) {
      const limit = known(state, "target");
      chips.forEach((chip, place) => {
        let weight = 0;
        let here = false;
        const as = (sequence) => {
          const [strip, first] = placeOf(sequence, 0);
          return strip === name ? place - first : -1;
        };
        if (row !== null) {
          const j = as(map.columns);
          if (j >= 0 && j < map.columnCount) weight = map.weight(state.layer, state.head, row, j);
          here = as(map.rows) === row;
        } else if (column !== null) {
          const i = as(map.rows);
          if (i >= 0 && i < map.rowCount) weight = map.weight(state.layer, state.head, i, column);
          here = as(map.columns) === column;
        }
        chip.style.setProperty("--weight", weight.toFixed(3));
        chip.classList.toggle("strong", weight > 0.55);
        chip.classList.toggle("here", here);
        chip.classList.toggle("ghost", name !== "source" && place >= limit);
      });
    }
  }

  store.on((state, has) => {
    if (!state.view) {
      if (has("view")) element.replaceChildren();
      return;
    }
    if (has("view")) build(state.view);
    if (has("view", "map", "layer", "head", "focus", "cursor")) shade(state);
  });
  return element;
}
