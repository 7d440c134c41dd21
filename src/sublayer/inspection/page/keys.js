// What each key does; help.js says it to the user.

import { currentMap } from "./state.js";

export function bindKeys(page, { store, actions, form, grid, help, host }) {
  const { state } = store;

  function move(layers, heads) {
    const map = currentMap(state);
    if (!map) return;
    const clamp = (value, count) => Math.max(0, Math.min(count - 1, value));
    store.set({ layer: clamp(state.layer + layers, map.layers), head: clamp(state.head + heads, map.heads), focus: null });
    queueMicrotask(grid.focus);
  }

  const keys = {
    ArrowLeft: () => move(0, -1),
    ArrowRight: () => move(0, 1),
    ArrowUp: () => move(-1, 0),
    ArrowDown: () => move(1, 0),
    ",": () => actions.step(-1),
    ".": () => actions.step(1),
    Home: () => actions.step("first"),
    End: () => actions.step("all"),
    " ": () => actions.play(),
    x: () => host.ask && state.view && actions.toggle(state.map, state.layer, state.head),
    X: () => actions.toggleLayer(),
    r: () => actions.allOn(),
    t: () => actions.theme(),
    a: () => actions.shape("arcs"),
    m: () => actions.shape("matrix"),
    b: () => actions.shape("both"),
    "/": () => form.focus(),
    "?": () => help.toggle(),
    Escape: () => help.close() || store.set({ cursor: null, focus: null, playing: false }),
  };
  for (const [place, [name]] of host.about.maps.entries()) keys[String(place + 1)] = () => actions.turn(name);

  page.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("textarea, input, select")) {
      if (event.key === "Escape") page.focus();
      return;
    }
    // A button takes the space bar for itself.
    if (event.key === " " && event.target.closest("button")) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  if (host.whole) {
    // The page is all there is: keys count wherever the focus is.
    document.addEventListener("keydown", (event) => {
      if (event.target === document.body) page.dispatchEvent(new KeyboardEvent("keydown", event));
    });
  }
}
