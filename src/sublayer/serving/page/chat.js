// The panel of a conversation.

import { growing } from "./asking.js";
import { element, options } from "./dom.js";
import { labelled, panel } from "./panel.js";

export function chat(models) {
  const model = element("select", { name: "model" });
  options(model, models.map((one) => [one.id, one.id]), models[0].id);
  const turns = element("div", { class: "turns", "aria-live": "polite" });
  const text = element("textarea", { "aria-label": "Message", placeholder: "Say something", autofocus: true });
  const messages = [];
  const anew = element("button", { type: "button" }, "New conversation");
  anew.addEventListener("click", () => {
    messages.length = 0;
    turns.replaceChildren();
    text.focus();
  });

  function shown(role, said) {
    const turn = element("div", { class: `turn ${role}` }, said);
    turns.append(turn);
    return turn;
  }

  return panel("Send", [element("div", { class: "row" }, labelled("Model", model), anew), turns, text], async (signal) => {
    const said = text.value;
    if (!said.trim()) return;
    text.value = "";
    messages.push({ role: "user", content: said });
    shown("user", said);
    const turn = shown("assistant", "");
    try {
      for await (const part of growing("v1/chat/completions", { model: model.value, messages }, signal)) {
        turn.append(part.choices[0]?.delta.content ?? "");
      }
    } finally {
      messages.push({ role: "assistant", content: turn.textContent });
    }
  });
}
