// All heads at once: a small picture each, a row a layer. Arrow keys go from head to head.

import { scale } from "./colour.js";
import { h, sized } from "./dom.js";
import { currentMap, headKey } from "./state.js";

const GAP = 3;
const LABEL = 18;
const HEADING = 18;

/** A head's map in `size` pixels a side; of several weights under one pixel the largest is shown. */
function thumbnail(map, layer, head, width, height, colours) {
  const image = new ImageData(width, height);
  const { rowCount, columnCount } = map;
  const largest = new Uint8Array(width * height);
  const seen = new Uint8Array(width * height);
  if (rowCount >= height && columnCount >= width) {
    for (let i = 0; i < rowCount; i++) {
      const row = map.row(layer, head, i);
      const base = Math.floor((i * height) / rowCount) * width;
      for (let j = 0; j < row.length; j++) {
        const place = base + Math.floor((j * width) / columnCount);
        if (row[j] > largest[place]) largest[place] = row[j];
        seen[place] = 1;
      }
    }
  } else {
    for (let y = 0; y < height; y++) {
      const row = map.row(layer, head, Math.floor((y * rowCount) / height));
      for (let x = 0; x < width; x++) {
        const j = Math.floor((x * columnCount) / width);
        if (j < row.length) {
          largest[y * width + x] = row[j];
          seen[y * width + x] = 1;
        }
      }
    }
  }
  for (let place = 0; place < largest.length; place++) {
    if (seen[place]) image.data.set(colours.subarray(4 * largest[place], 4 * largest[place] + 4), 4 * place);
  }
  return image;
}

export function createGrid(store, actions, live) {
  const body = h("div", { class: "heads", role: "group", "aria-label": "All heads" });
  const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Kinds of attention" });
  const legend = h("div", { class: "legend" });
  const element = h(
    "section",
    { class: "panel grid-panel", "aria-label": "Heads" },
    h("header", {}, h("h2", {}, "All heads"), tabs),
    body,
    legend,
  );
  // One canvas for all: hundreds would cost a browser more than what is drawn on them.
  const canvas = h("canvas", { class: "thumbnails", "aria-hidden": "true" });
  let buttons = new Map();
  let built = "";

  function build(state) {
    const { maps } = state.view ?? {};
    const list = maps ?? [];
    tabs.replaceChildren(
      ...(list.length > 1 ? list : []).map((map) =>
        h(
          "button",
          {
            type: "button",
            role: "tab",
            "data-map": map.name,
            "aria-selected": String(map.name === state.map),
            onclick: () => actions.turn(map.name),
          },
          map.title,
        ),
      ),
    );
    const map = currentMap(state);
    const key = map ? `${map.name} ${map.layers} ${map.heads}` : "";
    if (key === built) return;
    built = key;
    buttons = new Map();
    if (!map) {
      body.replaceChildren();
      return;
    }
    const cells = [canvas, h("span", { class: "corner" })];
    for (let head = 0; head < map.heads; head++) cells.push(h("span", { class: "axis" }, String(head)));
    for (let layer = 0; layer < map.layers; layer++) {
      cells.push(h("span", { class: "axis layer" }, String(layer)));
      for (let head = 0; head < map.heads; head++) {
        const button = h(
          "button",
          {
            type: "button",
            class: "head",
            "data-head": headKey(map.name, layer, head),
            onclick: () => actions.select(map.name, layer, head),
            ondblclick: live ? () => actions.toggle(map.name, layer, head) : null,
          },
        );
        buttons.set(headKey(map.name, layer, head), button);
        cells.push(button);
      }
    }
    body.style.setProperty("--heads", map.heads);
    body.replaceChildren(...cells);
  }

  function draw(state) {
    const map = currentMap(state);
    if (!map) return;
    const colours = scale(state.look);
    const room = (element.clientWidth || 340) - 36 - LABEL;
    const most = map.layers <= 4 ? 96 : 56;
    const side = Math.max(20, Math.min(most, Math.floor(room / map.heads) - GAP));
    body.style.setProperty("--side", `${side}px`);
    const pitch = side + GAP;
    const width = LABEL + map.heads * pitch;
    const height = HEADING + map.layers * pitch;
    const context = sized(canvas, width, height);
    const ratio = canvas.width / width;
    for (let layer = 0; layer < map.layers; layer++) {
      for (let head = 0; head < map.heads; head++) {
        // Whole pixels of the screen: data is put, not drawn.
        const [x, y] = [LABEL + GAP + head * pitch, HEADING + GAP + layer * pitch].map((at) => Math.round(at * ratio));
        const size = Math.round(side * ratio);
        context.putImageData(thumbnail(map, layer, head, size, size, colours), x, y);
      }
    }
  }

  function mark(state) {
    const map = currentMap(state);
    if (!map) return;
    for (const [key, button] of buttons) {
      const [, layer, head] = key.split(".").map(Number);
      const off = state.off.has(key);
      const here = layer === state.layer && head === state.head;
      button.classList.toggle("off", off);
      button.classList.toggle("selected", here);
      button.tabIndex = here ? 0 : -1;
      button.setAttribute("aria-pressed", String(here));
      button.setAttribute("aria-label", `layer ${layer} head ${head}${off ? ", off" : ""}`);
      button.title = `layer ${layer} · head ${head}${off ? " · off" : ""}`;
    }
    for (const tab of tabs.children) {
      tab.setAttribute("aria-selected", String(tab.dataset.map === state.map));
      const dots = [...state.off].filter((key) => key.startsWith(`${tab.dataset.map}.`)).length;
      tab.dataset.off = dots || "";
    }
  }

  function drawLegend(state) {
    const canvas = h("canvas", { "aria-hidden": "true" });
    const width = 150;
    const context = sized(canvas, width, 8);
    const colours = scale(state.look);
    for (let x = 0; x < width; x++) {
      const [red, green, blue] = colours.subarray(4 * Math.round((255 * x) / (width - 1)));
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      context.fillRect(x, 0, 1.5, 8);
    }
    const ticks = [0, 0.05, 0.2, 0.5, 1].map((tick) => {
      const label = h("span", {}, String(tick).replace("0.", "."));
      label.style.left = `${Math.sqrt(tick) * width}px`;
      return label;
    });
    legend.replaceChildren(
      h("div", { class: "ramp" }, canvas, h("div", { class: "ticks" }, ticks)),
      h("p", {}, `Attention weight. A row is a layer, a column a head.${live ? " Double-click switches a head off." : ""}`),
    );
  }

  store.on((state, has) => {
    if (has("view", "map")) build(state);
    if (has("view", "map", "look", "width")) draw(state);
    if (has("look")) drawLegend(state);
    if (has("view", "map", "layer", "head", "off")) mark(state);
  });
  return {
    element,
    focus: () => buttons.get(headKey(store.state.map, store.state.layer, store.state.head))?.focus({ preventScroll: false }),
  };
}
