// Where the text is typed.

import { h } from "./dom.js";

const DOING = { translate: "Translate", generate: "Go on", fill: "Fill", classify: "Classify", tag: "Tag" };
const PAUSE = 350;

export function createForm(store, actions, host) {
  const { about } = host;
  if (!host.ask) {
    return { element: h("div", { hidden: true }), take() {}, focus() {} };
  }
  let waiting = 0;
  const field = h("textarea", {
    class: "field", rows: 1, spellcheck: "false", dir: "auto", "aria-label": "Text", maxlength: 20000,
    placeholder: about.examples[0] ?? "Type a sentence",
    oninput: () => {
      fit();
      clearTimeout(waiting);
      // While one types, only where the answer comes at once.
      if (actions.live) waiting = setTimeout(() => actions.ask(field.value), PAUSE);
    },
    onkeydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        go();
      }
    },
  });
  const button = h("button", { type: "submit", class: "go" }, DOING[about.task] ?? "Look");
  const options = [];
  if (about.task === "generate") {
    const count = h("select", { "aria-label": "New tokens", onchange: () => actions.change({ tokens: Number(count.value) }) },
      [1, 8, 16, 32, 64].map((tokens) => h("option", { value: tokens, selected: tokens === 16 }, `${tokens} ${tokens === 1 ? "token" : "tokens"}`)));
    options.push(count);
  }
  if (about.chat) {
    const chat = h("input", { type: "checkbox", onchange: () => actions.change({ chat: chat.checked }) });
    options.push(h("label", { class: "check" }, chat, "as a chat turn"));
  }
  const element = h(
    "form",
    {
      class: "form",
      onsubmit: (event) => {
        event.preventDefault();
        go();
      },
    },
    field,
    h("div", { class: "options" }, options, button),
  );

  function go() {
    clearTimeout(waiting);
    actions.ask(field.value);
  }

  function fit() {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight + 2, 180)}px`;
  }

  store.on((state, has) => {
    // Not while somebody types: the text is theirs.
    if (has("text") && field.value !== state.text && document.activeElement !== field) {
      field.value = state.text;
      fit();
    }
    if (has("width")) fit();
  });
  return {
    element,
    take(text) {
      field.value = text;
      fit();
      go();
    },
    focus: () => field.focus(),
  };
}
