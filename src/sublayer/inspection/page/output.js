// What the model says of the text, and what has changed since heads were switched off.

import { scale } from "./colour.js";
import { h, percent, sized } from "./dom.js";

/** Which of `ids` are not in a longest common subsequence with `other`. */
export function changed(ids, other) {
  const [n, m] = [ids.length, other.length];
  const longest = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      longest[i][j] = ids[i] === other[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  const found = new Set();
  let [i, j] = [0, 0];
  while (i < n) {
    if (j < m && ids[i] === other[j]) {
      i += 1;
      j += 1;
    } else if (j < m && longest[i][j + 1] >= longest[i + 1][j]) j += 1;
    else found.add(i++);
  }
  return found;
}

function made(view) {
  const tokens = view.sequences.target ?? view.sequences.text;
  return tokens.slice(view.made);
}

function sentence(tokens, marked) {
  return tokens.flatMap((token, place) => [
    token.glued || place === 0 ? "" : " ",
    marked.has(place) ? h("mark", {}, token.text) : token.text,
  ]);
}

function minus(value) {
  return value.toFixed(2).replace("-", "−");
}

function written(view, baseline, off) {
  const { output } = view;
  const facts = [output.by];
  if (Number.isFinite(output.log_probability)) facts.push(`log P ${minus(output.log_probability)}`);
  if (!output.complete) facts.push("not at its end");
  const parts = [h("p", { class: "facts" }, facts.join(" · "))];
  if (off && baseline) {
    const [now, before] = [made(view), made(baseline)];
    const [nowIds, beforeIds] = [now, before].map((tokens) => tokens.map((token) => token.id));
    const same = nowIds.join() === beforeIds.join();
    const added = changed(nowIds, beforeIds);
    const lost = changed(beforeIds, nowIds);
    const difference = minus(output.log_probability - baseline.output.log_probability);
    parts.unshift(
      h(
        "dl",
        { class: "compare" },
        h("dt", {}, "all heads"), h("dd", { class: "before", dir: "auto" }, sentence(before, lost)),
        h("dt", {}, off === 1 ? "one head off" : `${off} heads off`),
        h("dd", { class: "after", dir: "auto" }, sentence(now, added),
          same ? h("em", {}, ` the same words, log P ${difference.startsWith("−") ? "" : "+"}${difference}`) : null),
      ),
    );
  }
  return parts;
}

function bars(pairs, before) {
  return h(
    "ol",
    { class: "bars" },
    pairs.slice(0, 12).map(([label, probability]) => {
      const bar = h("span", { class: "bar" });
      bar.style.setProperty("--share", probability);
      const was = before?.get(label);
      if (was !== undefined) bar.append(tick(was));
      return h("li", {}, h("span", { class: "name", dir: "auto" }, label), bar, h("span", { class: "number" }, percent(probability)));
    }),
  );
}

/** Where a bar ended with all heads on. */
export function tick(share) {
  const mark = h("i", { class: "was", title: `all heads: ${percent(share)}` });
  mark.style.setProperty("--share", share);
  return mark;
}

function vector(view, off, look) {
  const { values, likeness } = view.output;
  const width = Math.min(560, values.length * 2);
  const canvas = h("canvas", { class: "barcode", role: "img", "aria-label": `a vector of ${values.length} numbers` });
  const context = sized(canvas, width, 30);
  const colours = scale(look);
  const most = Math.max(...values.map(Math.abs)) || 1;
  values.forEach((value, place) => {
    const byte = Math.round((255 * Math.abs(value)) / most);
    context.fillStyle = `rgb(${[...colours.subarray(4 * byte, 4 * byte + 3)].join(" ")})`;
    context.fillRect((place * width) / values.length, value >= 0 ? 0 : 15, width / values.length + 0.2, 15);
  });
  const said = off ? `cosine with the vector of all heads: ${likeness.toFixed(4)}` : "above the line what is positive, below it what is negative";
  return [canvas, h("p", { class: "facts" }, `a vector of ${values.length} numbers · ${said}`)];
}

function parts(state) {
  const { view, baseline, off, look } = state;
  const { output } = view;
  switch (output.type) {
    case "text":
      return written(view, baseline, off.size);
    case "labels":
      return [bars(output.labels, off.size && baseline ? new Map(baseline.output.labels) : null)];
    case "tags":
      return [
        h("div", { class: "tags" }, output.tags.map(([label, probability], place) => {
          const token = view.sequences.text[place];
          const other = off.size && baseline && baseline.output.tags[place]?.[0] !== label;
          return token.kind === "special" ? null : h("span", { class: `tag${other ? " other" : ""}`, title: percent(probability) },
            h("b", { dir: "auto" }, token.text), h("span", {}, label));
        })),
      ];
    case "vector":
      return vector(view, off.size, look);
    case "words":
      return [h("p", { class: "facts" }, output.masks.length
        ? "What may stand behind each mask is below: choose a word of the text to see what the model expects there."
        : "Write [MASK] in place of a word to hide it. Choose any word to see what the model expects there.")];
    default:
      return [h("p", { class: "facts" }, "This encoder has no head: it gives a vector for each token, and no words.")];
  }
}

export function createOutput(store) {
  const element = h("div", { class: "output", "aria-live": "polite" });
  store.on((state, has) => {
    if (!has("view", "baseline", "look")) return;
    element.replaceChildren(...(state.view ? parts(state) : []));
  });
  return element;
}
