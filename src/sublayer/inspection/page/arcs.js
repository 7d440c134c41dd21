// One head as curves between words: who attends on the left, what is attended to on the right.

import { h, percent, s, sized } from "./dom.js";
import { activeColumn, activeRow, currentMap, known } from "./state.js";

const MOST_A_ROW = 6;
const LEAST = 44; // a byte: weights from 0.03 on
const SHOWN = 0.005;
let made = 0;

function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

export function createArcs(store) {
  const element = h("div", { class: "arcs", tabindex: "-1" });
  const gradient = `arc-${made++}`;
  let rows = [];
  let columns = [];
  let values = [];
  let extra = null;
  let place = null;
  let view = null;
  const canvas = h("canvas", { class: "overview", "aria-hidden": "true" });
  const ruler = document.createElement("canvas").getContext("2d");

  const thickness = (weight) => 0.6 + weight * Math.min(6, place.step * 0.5);
  const opacity = (weight) => 0.12 + 0.88 * Math.sqrt(weight);

  function curve(i, j, weight) {
    const { left, right, step, top } = place;
    const [from, to] = [top + (i + 0.5) * step, top + (j + 0.5) * step];
    const middle = (left + right) / 2;
    return s("path", {
      d: `M${left} ${from.toFixed(1)}C${middle} ${from.toFixed(1)} ${middle} ${to.toFixed(1)} ${right} ${to.toFixed(1)}`,
      "stroke-width": thickness(weight).toFixed(2),
      opacity: opacity(weight).toFixed(2),
      stroke: `url(#${gradient})`,
    });
  }

  function word(token, x, y, side, index) {
    return s(
      "text",
      { x, y, class: `word ${side} ${token.kind}`, [side === "row" ? "data-row" : "data-column"]: index },
      clipped(token.text, place.letters),
    );
  }

  /** Pixels that the longest word takes at this size, and no less than the caption above. */
  function widest(tokens, font) {
    ruler.font = `${font}px ${getComputedStyle(element).fontFamily}`;
    return Math.max(64, ...tokens.map((token) => ruler.measureText(clipped(token.text, 24)).width));
  }

  function build(state) {
    const map = currentMap(state);
    if (!map) {
      element.replaceChildren();
      return;
    }
    const rowTokens = state.view.sequences[map.rows];
    const columnTokens = state.view.sequences[map.columns];
    const longest = Math.max(map.rowCount, map.columnCount);
    const width = Math.max(280, element.clientWidth - 2 || 420);
    const step = Math.max(14, Math.min(30, 560 / longest));
    const font = Math.max(11, Math.min(14.5, step * 0.62));
    const most = Math.max(40, Math.min(150, width * 0.3));
    const [before, after] = [rowTokens, columnTokens].map((tokens) => Math.min(most, widest(tokens, font)));
    place = {
      left: before + 14, right: width - after - 56, step, top: 4, letters: Math.max(5, Math.floor(most / (font * 0.56))),
    };
    const height = longest * step + 8;
    Object.assign(place, { width, height });
    const { left, right, top } = place;
    const [from, to] = ["from", "to"].map((name, index) => s("stop", { offset: index, class: `stop-${name}` }));
    rows = rowTokens.slice(0, map.rowCount).map((token, i) => word(token, left - 8, top + (i + 0.5) * step, "row", i));
    columns = columnTokens.slice(0, map.columnCount)
      .map((token, j) => word(token, right + 8, top + (j + 0.5) * step, "column", j));
    values = columns.map((_, j) => s("text", { x: width - 2, y: top + (j + 0.5) * step, class: "value" }));
    extra = s("g", { class: "arc on" });
    const svg = s(
      "svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label(state, map) },
      s("defs", {}, s("linearGradient",
        { id: gradient, gradientUnits: "userSpaceOnUse", x1: left, x2: right, y1: 0, y2: 0 }, from, to)),
      extra, rows, columns, values,
    );
    svg.style.fontSize = `${font}px`;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const index = Math.floor((event.clientY - box.top - top) / step);
      const x = event.clientX - box.left;
      if (index < 0) return;
      if (x < (left + right) / 2) {
        if (index < map.rowCount) store.set({ focus: same("row", index) });
      } else if (index < map.columnCount) store.set({ focus: same("column", index) });
    });
    svg.addEventListener("pointerleave", () => store.set({ focus: null }));
    const sides = [h("span", {}, caption(map)), h("span", {}, "looks at")];
    sides[0].style.width = `${left - 8}px`;
    sides[1].style.left = `${right + 8}px`;
    const held = view?.scrollTop ?? 0;
    view = h("div", { class: "scroll" }, h("div", { class: "layers" }, canvas, svg));
    element.replaceChildren(h("div", { class: "sides" }, sides), view);
    view.scrollTop = held;
  }

  /** The strongest few of every row, all at once: on a canvas, for of 200 tokens there are a thousand. */
  function overview(state) {
    const map = currentMap(state);
    if (!map) return;
    const { left, right, step, top, width, height } = place;
    const context = sized(canvas, width, height);
    const style = getComputedStyle(element);
    const blend = context.createLinearGradient(left, 0, right, 0);
    blend.addColorStop(0, style.getPropertyValue("--warm"));
    blend.addColorStop(1, style.getPropertyValue("--accent"));
    context.strokeStyle = blend;
    context.lineCap = "round";
    const middle = (left + right) / 2;
    const limit = known(state, map.rows);
    for (let i = 0; i < map.rowCount; i++) {
      const weights = map.row(state.layer, state.head, i);
      const from = top + (i + 0.5) * step;
      for (const j of strongest(weights)) {
        const weight = (weights[j] / 255) ** 2;
        const to = top + (j + 0.5) * step;
        context.globalAlpha = opacity(weight) * (i < limit ? 1 : 0.12);
        context.lineWidth = thickness(weight);
        context.beginPath();
        context.moveTo(left, from);
        context.bezierCurveTo(middle, from, middle, to, right, to);
        context.stroke();
      }
    }
  }

  function strongest(weights) {
    const found = [];
    for (let j = 0; j < weights.length; j++) if (weights[j] >= LEAST) found.push(j);
    return found.length > MOST_A_ROW ? found.sort((a, b) => weights[b] - weights[a]).slice(0, MOST_A_ROW) : found;
  }

  function same(kind, index) {
    return store.state.focus?.[kind] === index ? store.state.focus : { [kind]: index };
  }

  function caption(map) {
    return map.rows === "predicted" ? "to write" : "each token";
  }

  function label(state, map) {
    return `Attention of layer ${state.layer} head ${state.head}, ${map.rowCount} by ${map.columnCount} tokens, as curves`;
  }

  function mark(state) {
    const map = currentMap(state);
    if (!map || !extra) return;
    const row = activeRow(state);
    const column = activeColumn(state);
    const some = row !== null || column !== null;
    element.classList.toggle("focused", some);
    const drawn = [];
    const [limitRow, limitColumn] = [known(state, map.rows), known(state, map.columns)];
    if (row !== null) {
      const weights = map.row(state.layer, state.head, row);
      for (let j = 0; j < weights.length; j++) {
        const weight = (weights[j] / 255) ** 2;
        if (weight >= SHOWN) drawn.push(curve(row, j, weight));
      }
    } else if (column !== null) {
      for (let i = 0; i < map.rowCount; i++) {
        const weight = map.weight(state.layer, state.head, i, column);
        if (weight >= SHOWN) drawn.push(curve(i, column, weight));
      }
    }
    extra.replaceChildren(...drawn);
    reveal(row ?? column);
    rows.forEach((text, i) => {
      const weight = column === null ? 0 : map.weight(state.layer, state.head, i, column);
      text.classList.toggle("here", i === row);
      text.classList.toggle("ghost", i >= limitRow && i !== row);
      text.classList.toggle("dim", some && i !== row && weight < SHOWN);
    });
    columns.forEach((text, j) => {
      const weight = row === null ? 0 : map.weight(state.layer, state.head, row, j);
      text.classList.toggle("here", j === column);
      text.classList.toggle("ghost", j >= limitColumn);
      text.classList.toggle("lit", weight >= 0.1);
      text.classList.toggle("dim", some && j !== column && weight < SHOWN);
      values[j].textContent = weight >= SHOWN ? percent(weight) : "";
    });
  }

  /** Bring what stands out into sight, unless the pointer is here and decides itself. */
  function reveal(index) {
    if (index === null || element.matches(":hover")) return;
    const at = place.top + index * place.step;
    if (at < view.scrollTop || at + place.step > view.scrollTop + view.clientHeight) {
      view.scrollTop = Math.max(0, at - view.clientHeight / 2);
    }
  }

  store.on((state, has) => {
    if (has("view", "map", "layer", "head", "width", "shape")) build(state);
    if (has("view", "map", "layer", "head", "width", "shape", "cursor", "look")) overview(state);
    if (has("view", "map", "layer", "head", "width", "shape", "focus", "cursor")) mark(state);
  });
  return element;
}
