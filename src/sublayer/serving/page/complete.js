// The panel in which a text goes on.

import { growing } from "./asking.js";
import { element, options } from "./dom.js";
import { labelled, panel } from "./panel.js";

export function complete(models) {
  const model = element("select", { name: "model" });
  options(model, models.map((one) => [one.id, one.id]), models[0].id);
  const most = element("input", { type: "number", min: 1, max: 4096, value: 64 });
  const heat = element("input", { type: "number", min: 0, max: 2, step: 0.1, value: 0 });
  const text = element("textarea", { "aria-label": "Beginning of a text", placeholder: "Once upon a time", autofocus: true });
  const found = element("output", { "data-empty": "How it goes on", "aria-live": "polite" });
  const settings = element(
    "div", { class: "row" }, labelled("Model", model), labelled("Tokens", most), labelled("Temperature", heat),
  );
  return panel("Complete", [settings, text, found], async (signal) => {
    found.textContent = "";
    const told = { model: model.value, prompt: text.value, max_tokens: Number(most.value), temperature: Number(heat.value) };
    for await (const part of growing("v1/completions", told, signal)) {
      found.append(part.choices[0]?.text ?? "");
    }
  });
}
