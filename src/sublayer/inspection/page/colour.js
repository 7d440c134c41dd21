// From a weight to a colour. The scale goes with the square root of the weight, so that thin attention is still seen.

const STOPS = {
  light: ["#ffffff", "#e3e4fb", "#a3a7f0", "#5a5bdb", "#2f2aa8", "#17124f"],
  dark: ["#1b1b22", "#2a2950", "#4a49a8", "#7c80f0", "#b9bdff", "#f6f6ff"],
};

function linear(hex) {
  return [1, 3, 5].map((start) => (Number.parseInt(hex.slice(start, start + 2), 16) / 255) ** 2.2);
}

/** 256 colours, each four bytes, for the bytes of a map. */
function table(stops) {
  const colours = stops.map(linear);
  const found = new Uint8ClampedArray(4 * 256);
  for (let byte = 0; byte < 256; byte++) {
    const at = (byte / 255) * (colours.length - 1);
    const low = Math.min(Math.floor(at), colours.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const mixed = colours[low][channel] * (low + 1 - at) + colours[low + 1][channel] * (at - low);
      found[4 * byte + channel] = 255 * mixed ** (1 / 2.2);
    }
    found[4 * byte + 3] = 255;
  }
  return found;
}

const TABLES = Object.fromEntries(Object.entries(STOPS).map(([theme, stops]) => [theme, table(stops)]));

export function scale(theme) {
  return TABLES[theme];
}

export function css(theme, byte) {
  const [red, green, blue] = TABLES[theme].subarray(4 * byte, 4 * byte + 3);
  return `rgb(${red} ${green} ${blue})`;
}
