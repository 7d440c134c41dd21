// The keys.

import { h } from "./dom.js";

const KEYS = [
  ["/", "to the text"],
  ["Enter", "read it"],
  ["← → ↑ ↓", "from head to head"],
  ["1 2 3", "kinds of attention"],
  ["a  m  b", "arcs, matrix, both"],
  ["x", "switch the head off or on"],
  ["X", "all heads of the layer"],
  ["r", "all heads on"],
  [",  .", "a step back, a step on"],
  ["Home  End", "the first step, the whole"],
  ["Space", "play"],
  ["Esc", "nothing stands out"],
  ["t", "theme"],
  ["?", "this list"],
];

export function createHelp() {
  const element = h(
    "dialog",
    { class: "help", "aria-label": "Keys" },
    h("h2", {}, "Keys"),
    h("dl", {}, KEYS.map(([keys, what]) => [h("dt", {}, keys.split("  ").map((key) => h("kbd", {}, key))), h("dd", {}, what)])),
    h("form", { method: "dialog" }, h("button", { type: "submit" }, "Close")),
  );
  return {
    element,
    toggle: () => (element.open ? element.close() : element.showModal()),
    close() {
      if (!element.open) return false;
      element.close();
      return true;
    },
  };
}
