// Words and curves, as an emblem: while there is nothing to show, and while the model is at work.

import { s } from "./dom.js";

const CURVES = [[0, 1], [1, 0], [2, 2], [2, 4], [3, 3], [4, 3]];

export function figure(busy) {
  const y = (row) => 12 + row * 24;
  return s(
    "svg",
    { class: `figure${busy ? " busy" : ""}`, viewBox: "0 0 220 120", width: 220, height: 120, "aria-hidden": "true" },
    CURVES.map(([from, to], place) => s("path", {
      d: `M40 ${y(from)}C110 ${y(from)} 110 ${y(to)} 180 ${y(to)}`, pathLength: 1, class: `curve c${place % 3}`,
    })),
    [0, 1, 2, 3, 4].flatMap((row) => [
      s("rect", { x: 34 - [22, 30, 16, 26, 20][row], y: y(row) - 3.5, width: [22, 30, 16, 26, 20][row], height: 7, rx: 3.5, class: "from" }),
      s("rect", { x: 186, y: y(row) - 3.5, width: [26, 18, 30, 20, 24][row], height: 7, rx: 3.5, class: "to" }),
    ]),
  );
}
