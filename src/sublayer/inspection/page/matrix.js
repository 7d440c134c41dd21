// One head as a matrix: row by row what each token attends to.

import { scale } from "./colour.js";
import { h, percent, sized } from "./dom.js";
import { activeColumn, activeRow, currentMap, known } from "./state.js";

const FONT = 12;

export function createMatrix(store) {
  const canvas = h("canvas", { class: "cells", role: "img" });
  const band = { row: h("div", { class: "band" }), column: h("div", { class: "band" }) };
  const tip = h("div", { class: "tip", hidden: true });
  const stage = h("div", { class: "stage" }, canvas, band.row, band.column);
  const scroll = h("div", { class: "scroll" }, stage);
  const element = h("div", { class: "matrix" }, scroll, tip);
  let place = null;

  function widest(context, tokens) {
    let most = 0;
    for (const token of tokens) most = Math.max(most, context.measureText(token.text.slice(0, 18)).width);
    return Math.min(most, 120);
  }

  function draw(state) {
    const map = currentMap(state);
    if (!map) {
      place = null;
      return;
    }
    const style = getComputedStyle(element);
    const ink = style.getPropertyValue("--ink");
    const quiet = style.getPropertyValue("--faint");
    const empty = style.getPropertyValue("--void");
    const rowTokens = state.view.sequences[map.rows];
    const columnTokens = state.view.sequences[map.columns];
    const probe = canvas.getContext("2d");
    probe.font = `${FONT}px ${style.fontFamily}`;
    const left = widest(probe, rowTokens) + 10;
    const top = widest(probe, columnTokens) + 10;
    const room = Math.max(220, (element.clientWidth || 420) - left - 6);
    const cell = Math.max(4, Math.min(32, room / map.columnCount, 620 / map.rowCount));
    const [width, height] = [cell * map.columnCount, cell * map.rowCount];
    place = { left, top, cell, map };
    stage.style.width = `${left + width + 4}px`;
    const context = sized(canvas, left + width + 4, top + height + 4);
    const colours = scale(state.look);
    // A pixel a weight, then enlarged with sharp edges.
    const image = new ImageData(map.columnCount, map.rowCount);
    for (let i = 0; i < map.rowCount; i++) {
      const row = map.row(state.layer, state.head, i);
      for (let j = 0; j < row.length; j++) {
        image.data.set(colours.subarray(4 * row[j], 4 * row[j] + 4), 4 * (i * map.columnCount + j));
      }
    }
    const small = new OffscreenCanvas(map.columnCount, map.rowCount);
    small.getContext("2d").putImageData(image, 0, 0);
    context.fillStyle = empty;
    context.fillRect(left, top, width, height);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, left, top, width, height);
    if (cell >= 9) {
      context.strokeStyle = style.getPropertyValue("--panel");
      context.lineWidth = 1;
      context.beginPath();
      for (let j = 1; j < map.columnCount; j++) {
        context.moveTo(left + j * cell, top);
        context.lineTo(left + j * cell, top + height);
      }
      for (let i = 1; i < map.rowCount; i++) {
        context.moveTo(left, top + i * cell);
        context.lineTo(left + width, top + i * cell);
      }
      context.stroke();
    }
    context.font = probe.font;
    context.textBaseline = "middle";
    const every = Math.max(1, Math.ceil((FONT * 1.15) / cell));
    context.textAlign = "right";
    for (let i = 0; i < map.rowCount; i += every) {
      context.fillStyle = rowTokens[i].kind === "text" ? ink : quiet;
      context.fillText(rowTokens[i].text.slice(0, 18), left - 6, top + (i + 0.5) * cell, 120);
    }
    context.textAlign = "left";
    for (let j = 0; j < map.columnCount; j += every) {
      context.save();
      context.translate(left + (j + 0.5) * cell, top - 6);
      context.rotate(-Math.PI / 2);
      context.fillStyle = columnTokens[j].kind === "text" ? ink : quiet;
      context.fillText(columnTokens[j].text.slice(0, 18), 0, 0, 120);
      context.restore();
    }
    const limit = known(state, map.rows);
    if (limit < map.rowCount) {
      context.fillStyle = style.getPropertyValue("--veil");
      context.fillRect(left, top + limit * cell, width, height - limit * cell);
    }
    canvas.setAttribute(
      "aria-label",
      `Attention of layer ${state.layer} head ${state.head} as a matrix, ${map.rowCount} by ${map.columnCount} tokens`,
    );
  }

  function mark(state) {
    const row = place && activeRow(state);
    const column = place && activeColumn(state);
    band.row.hidden = row === null;
    band.column.hidden = column === null;
    if (!place) return;
    const { left, top, cell, map } = place;
    if (row !== null) put(band.row, left - 3, top + row * cell, cell * map.columnCount + 6, cell);
    if (column !== null) put(band.column, left + column * cell, top - 3, cell, cell * map.rowCount + 6);
    if (state.focus?.cell) {
      const { row: i, column: j } = state.focus.cell;
      const { sequences } = state.view;
      tip.replaceChildren(
        h("b", {}, sequences[map.rows][i].text), " → ", h("b", {}, sequences[map.columns][j].text),
        h("span", {}, percent(map.weight(state.layer, state.head, i, j))),
      );
      const x = left + (j + 1) * cell - scroll.scrollLeft;
      const y = top + i * cell - scroll.scrollTop;
      tip.style.left = `${Math.min(x + 8, element.clientWidth - 150)}px`;
      tip.style.top = `${Math.max(0, y - 34)}px`;
    }
    tip.hidden = !state.focus?.cell;
  }

  function put(box, x, y, width, height) {
    Object.assign(box.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
  }

  stage.addEventListener("pointermove", (event) => {
    if (!place) return;
    const box = canvas.getBoundingClientRect();
    const j = Math.floor((event.clientX - box.left - place.left) / place.cell);
    const i = Math.floor((event.clientY - box.top - place.top) / place.cell);
    const { rowCount, columnCount } = place.map;
    if (i < 0 || i >= rowCount) {
      store.set({ focus: j >= 0 && j < columnCount ? { column: j } : null });
      return;
    }
    const before = store.state.focus?.cell;
    if (before && before.row === i && before.column === j) return;
    const cell = j >= 0 && j < columnCount && (!place.map.causal || j <= i) ? { row: i, column: j } : null;
    store.set({ focus: { row: i, cell } });
  });
  stage.addEventListener("pointerleave", () => store.set({ focus: null }));

  store.on((state, has) => {
    if (has("view", "map", "layer", "head", "look", "width", "cursor", "shape")) draw(state);
    if (has("view", "map", "layer", "head", "look", "width", "cursor", "shape", "focus")) mark(state);
  });
  return element;
}
