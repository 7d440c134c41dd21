// Elements. Whatever a text says becomes a text node, so markup in it is shown and never runs.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: properties are attributes, or listeners where they begin with "on". */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function s(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

/** A canvas context whose unit is a CSS pixel, sharp on any screen. */
export function sized(canvas, width, height) {
  const ratio = Math.min(globalThis.devicePixelRatio || 1, 3);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** 0.634 -> "63 %", 0.0042 -> "0.4 %", 0.00001 -> "<0.1 %". */
export function percent(value) {
  if (value >= 0.0995) return `${Math.round(value * 100)} %`;
  if (value >= 0.00095) return `${(value * 100).toFixed(1)} %`;
  return value > 0 ? "<0.1 %" : "0 %";
}

/** 7577600 -> "7.6M". */
export function short(count) {
  for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (count >= size) return `${(count / size).toFixed(count < 10 * size ? 1 : 0)}${letter}`;
  }
  return String(count);
}
