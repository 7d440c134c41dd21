// The lens as a table: what the model would have said, had it stopped after a layer.

import { h, percent } from "./dom.js";
import { position } from "./candidates.js";

export function createLens(store, actions) {
  const body = h("div", { class: "scroll" });
  const note = h("p", { class: "facts" });
  const element = h(
    "section",
    { class: "panel lens-panel", "aria-label": "Lens" },
    h("header", {}, h("h2", {}, "Lens"), h("span", { class: "hint" }, "what the model would say after each layer")),
    body,
    note,
  );
  let columns = [];

  function heading(view, place) {
    if (view.lens.what === "labels" && view.lens.cells[0].length === 1) return "the text";
    return (view.sequences.target ?? view.sequences.text)[place].text;
  }

  function detail(cell) {
    return cell.map((one) => `${one.text}  ${percent(one.probability)}`).join("\n");
  }

  function build(state) {
    const { view } = state;
    element.hidden = !view?.lens;
    columns = [];
    if (element.hidden) return;
    const { lens } = view;
    const count = lens.cells[0].length;
    const last = lens.cells[lens.cells.length - 1];
    const places = [...Array(count).keys()].map((offset) => lens.first + offset);
    const head = h("tr", {}, h("th", { scope: "col" }, view.writes ? "after" : ""), places.map((place) =>
      h("th", { scope: "col", dir: "auto", "data-at": place }, heading(view, place))));
    // The last layer on top: the way up is the way through the model.
    const rows = lens.cells.map((cells, layer) =>
      h("tr", {}, h("th", { scope: "row" }, lens.layers[layer]), cells.map((cell, offset) => {
        const [best] = cell;
        const same = best.id === last[offset][0].id;
        const td = h("td", { class: same ? "final" : null, title: detail(cell), dir: "auto", "data-at": lens.first + offset }, best.text);
        td.style.setProperty("--share", Math.sqrt(best.probability).toFixed(3));
        return td;
      })),
    );
    const table = h("table", {}, h("thead", {}, head), h("tbody", {}, rows.reverse()));
    table.addEventListener("click", (event) => {
      const at = event.target.closest("[data-at]")?.dataset.at;
      if (at !== undefined && lens.what === "tokens") actions.go(Number(at));
    });
    body.replaceChildren(table);
    columns = [...table.querySelectorAll("[data-at]")];
    const all = (view.sequences.target ?? view.sequences.text).length;
    const range = lens.what === "tokens" && count < all ? `positions ${lens.first} to ${lens.first + count - 1} of ${all} · ` : "";
    note.textContent = `${range}bold: already what the last layer says · the shade is how sure it is`;
  }

  function mark(state) {
    if (columns.length === 0) return;
    const at = position(state);
    for (const cell of columns) cell.classList.toggle("here", Number(cell.dataset.at) === at && state.view.lens.what === "tokens");
    if (state.cursor === null) return;
    const cell = columns.find((one) => Number(one.dataset.at) === state.cursor);
    if (cell) {
      const { offsetLeft, offsetWidth } = cell;
      if (offsetLeft < body.scrollLeft + 90) body.scrollLeft = offsetLeft - 100;
      else if (offsetLeft + offsetWidth > body.scrollLeft + body.clientWidth) body.scrollLeft = offsetLeft + offsetWidth - body.clientWidth + 20;
    } else if (state.view.lens.what === "tokens") actions.lensAt(state.cursor);
  }

  store.on((state, has) => {
    if (has("view")) build(state);
    if (has("view", "cursor", "focus", "map") && state.view) mark(state);
  });
  return element;
}
