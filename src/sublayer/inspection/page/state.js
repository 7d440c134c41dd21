// What the page shows, in one object; whoever draws a part is told when something has changed.

export function store(initial) {
  const state = { ...initial };
  const listeners = [];
  let changed = null;

  function tell() {
    const keys = changed;
    changed = null;
    for (const listener of listeners) listener(state, (...names) => names.some((name) => keys.has(name)));
  }

  return {
    state,
    /** Change some of it; everybody is told once, before the next frame. */
    set(patch) {
      const keys = Object.keys(patch).filter((key) => patch[key] !== state[key]);
      if (keys.length === 0) return;
      Object.assign(state, patch);
      if (changed === null) {
        changed = new Set();
        queueMicrotask(tell);
      }
      for (const key of keys) changed.add(key);
    },
    /** Tell everybody that everything is new. */
    announce() {
      const all = { has: () => true, add: () => {} };
      if (changed === null) queueMicrotask(tell);
      changed = all;
    },
    /** `listener(state, has)`: has("view", "head") says whether any of these has changed. */
    on(listener) {
      listeners.push(listener);
    },
  };
}

export function headKey(map, layer, head) {
  return `${map}.${layer}.${head}`;
}

/** The map on show. */
export function currentMap(state) {
  return state.view && state.view.map(state.map);
}

/** The row that stands out: where the pointer is, or else where the steps are. */
export function activeRow(state) {
  const map = currentMap(state);
  if (!map) return null;
  if (state.focus) return state.focus.row ?? null;
  if (state.cursor === null) return null;
  if (state.view.writes && map.name === "encoder") return null;
  return state.cursor < map.rowCount ? state.cursor : null;
}

export function activeColumn(state) {
  return state.focus?.column ?? null;
}

/** How many tokens of a sequence are known at the step where we are; all where nobody steps. */
export function known(state, sequence) {
  if (state.cursor === null || !state.view.writes || sequence === "source") return Infinity;
  return sequence === "predicted" ? state.cursor : state.cursor + 1;
}
