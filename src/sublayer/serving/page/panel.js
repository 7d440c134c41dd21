// What the panels have in common: a form that is sent by its button or by Ctrl+Enter, stopped by Escape, and a fault.

import { element } from "./dom.js";

export function panel(title, parts, run) {
  const fault = element("p", { class: "fault", role: "alert" });
  const go = element("button", { class: "go", type: "submit" }, title);
  const stop = element("button", { type: "button", disabled: true }, "Stop");
  let running = null;

  async function start(event) {
    event?.preventDefault();
    if (running) return;
    running = new AbortController();
    fault.textContent = "";
    go.disabled = true;
    stop.disabled = false;
    try {
      await run(running.signal);
    } catch (error) {
      if (error.name !== "AbortError") fault.textContent = error.message;
    } finally {
      running = null;
      go.disabled = false;
      stop.disabled = true;
    }
  }

  const form = element("form", { onsubmit: start }, ...parts, element("div", { class: "row" }, go, stop), fault);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start(event);
    if (event.key === "Escape") running?.abort();
  });
  stop.addEventListener("click", () => running?.abort());
  return form;
}

export function labelled(title, control) {
  return element("label", {}, title, control);
}
