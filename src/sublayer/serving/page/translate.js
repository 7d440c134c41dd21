// The panel that translates.

import { asked, fetched } from "./asking.js";
import { element, options } from "./dom.js";
import { labelled, panel } from "./panel.js";

export async function translate() {
  const languages = await fetched("languages");
  const names = new Map(languages.map((one) => [one.code, one.name]));
  const source = element("select", { name: "source" });
  const target = element("select", { name: "target" });
  const text = element("textarea", { "aria-label": "Text", placeholder: "Text to translate", autofocus: true });
  const found = element("output", { "data-empty": "The translation", "aria-live": "polite" });
  options(source, [["auto", "Detect"], ...names], languages[0].code);

  function targets() {
    const from = languages.filter((one) => source.value === "auto" || one.code === source.value);
    const into = [...new Set(from.flatMap((one) => one.targets))].filter((code) => code !== source.value);
    options(target, into.map((code) => [code, names.get(code) ?? code]), target.value || into[0]);
  }
  source.addEventListener("change", targets);
  targets();

  return panel(
    "Translate",
    [element("div", { class: "row" }, labelled("From", source), labelled("to", target)), text, found],
    async (signal) => {
      const told = { q: text.value, source: source.value, target: target.value };
      found.textContent = (await asked("translate", told, signal)).translatedText;
    },
  );
}
