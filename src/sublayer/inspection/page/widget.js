// The page in a notebook (anywidget): the model is in the kernel; messages go to it and come back with their number.

import { mount } from "./page.js";

function render({ model, el }) {
  const waiting = new Map();
  let number = 0;
  const hear = (message) => {
    const [kept, rejected] = waiting.get(message.number) ?? [];
    waiting.delete(message.number);
    if (message.error) rejected?.(Object.assign(new Error(message.error.what), message.error));
    else kept?.(message.view);
  };
  model.on("msg:custom", hear);
  const ask = (question, signal) =>
    new Promise((kept, rejected) => {
      number += 1;
      const mine = number;
      waiting.set(mine, [kept, rejected]);
      signal?.addEventListener("abort", () => {
        waiting.delete(mine);
        rejected(new DOMException("aborted", "AbortError"));
      });
      model.send({ number: mine, question });
    });
  const view = model.get("view");
  mount(el, { about: view.about, ask: model.get("live") ? ask : null, view });
  return () => model.off("msg:custom", hear);
}

export default { render };
