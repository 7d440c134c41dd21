// A view as it travels (inspection/view.py) becomes one that can be drawn.

const FORMAT = 1;

/** Attention of one kind: `row(layer, head, i)` are the bytes of token i; a byte b is the weight (b / 255)². */
class AttentionMap {
  constructor(plain, bytes) {
    [this.layers, this.heads, this.rowCount, this.columnCount] = plain.shape;
    ({ name: this.name, title: this.title, rows: this.rows, columns: this.columns, causal: this.causal } = plain);
    this.bytes = bytes;
    const size = this.rowCount;
    this.perHead = this.causal ? (size * (size + 1)) / 2 : size * this.columnCount;
    const expected = this.perHead * this.layers * this.heads;
    if (bytes.length !== expected) throw new Error(`the map '${this.name}' has ${bytes.length} bytes, not ${expected}`);
  }

  /** The bytes of what token i attends to; in a causal map as many as there are up to i. */
  row(layer, head, i) {
    const start = (layer * this.heads + head) * this.perHead;
    return this.causal
      ? this.bytes.subarray(start + (i * (i + 1)) / 2, start + ((i + 1) * (i + 2)) / 2)
      : this.bytes.subarray(start + i * this.columnCount, start + (i + 1) * this.columnCount);
  }

  weight(layer, head, i, j) {
    const row = this.row(layer, head, i);
    return j < row.length ? (row[j] / 255) ** 2 : 0;
  }
}

async function unpacked(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place++) bytes[place] = binary.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function tokens(plain) {
  const [glued, special, unknown] = [plain.glued, plain.special, plain.unknown].map((places) => new Set(places));
  return plain.texts.map((text, place) => ({
    id: plain.ids[place],
    text,
    glued: glued.has(place),
    kind: special.has(place) ? "special" : unknown.has(place) ? "unknown" : "text",
  }));
}

function candidate(plain) {
  return plain && { id: plain[0], text: plain[1], probability: plain[2] };
}

function decodedLens(plain) {
  return plain && { ...plain, cells: plain.cells.map((row) => row.map((cell) => cell.map(candidate))) };
}

/** The view that `plain` is, with `map(name)`, `strip(name)` and the rest of what the page asks of it. */
export async function decode(plain) {
  if (plain.format !== FORMAT) throw new Error(`this page reads views of format ${FORMAT}, not ${plain.format}`);
  const sequences = Object.fromEntries(Object.entries(plain.sequences).map(([name, one]) => [name, tokens(one)]));
  const maps = await Promise.all(plain.maps.map(async (one) => new AttentionMap(one, await unpacked(one.weights))));
  const predictions = new Map(
    plain.predictions.map((one) => [
      one.at,
      { ...one, candidates: one.candidates.map(candidate), chosen: candidate(one.chosen) },
    ]),
  );
  const writes = plain.output.type === "text";
  const body = sequences.target ?? sequences.text;
  return {
    ...plain,
    sequences,
    maps,
    predictions,
    lens: decodedLens(plain.lens),
    writes,
    map: (name) => maps.find((one) => one.name === name) ?? maps[0],
    /** The ids that the model wrote: what is behind the start marker, or behind the prompt. */
    madeIds: writes ? body.slice(plain.made).map((token) => token.id) : [],
    /** The first and the last position at which something is predicted. */
    firstStep: writes ? plain.made - 1 : 0,
    lastStep: writes ? plain.predictions.length - 1 : body.length - 1,
  };
}

/** Where in the texts on show a row or a column of a map stands: [strip, place]. */
export function placeOf(sequence, index) {
  return sequence === "predicted" ? ["target", index + 1] : [sequence, index];
}

/** What a head does on this text, as shares of its attention: [["the token before", 0.62], ...], largest first. */
export function habits(map, layer, head, every = 1) {
  const sums = { same: 0, before: 0, after: 0, first: 0, last: 0 };
  let entropy = 0;
  let seen = 0;
  for (let i = 0; i < map.rowCount; i += every) {
    seen += 1;
    const row = map.row(layer, head, i);
    for (let j = 0; j < row.length; j++) {
      const weight = (row[j] / 255) ** 2;
      if (weight > 0) entropy -= weight * Math.log2(weight);
      if (map.rows === map.columns) {
        if (j === i) sums.same += weight;
        else if (j === i - 1) sums.before += weight;
        else if (j === i + 1) sums.after += weight;
      }
      if (j === 0 && i > 1) sums.first += weight;
      else if (j === map.columnCount - 1 && i < j - 1) sums.last += weight;
    }
  }
  const named = [
    ["on the token itself", sums.same],
    ["on the token before", sums.before],
    ["on the token after", sums.after],
    ["on the first token", sums.first],
    ["on the last token", sums.last],
  ];
  const shares = named.map(([name, sum]) => [name, sum / seen]).sort((a, b) => b[1] - a[1]);
  return { shares, entropy: entropy / seen, idle: (sums.same + sums.first) / seen };
}

/** The head to begin with: one that looks sharply, and elsewhere than at the first token and at itself. */
export function telling(map) {
  const every = Math.ceil(map.rowCount / 16);
  const most = Math.log2(Math.max(2, map.columnCount));
  let best = { score: -Infinity, layer: 0, head: 0 };
  for (let layer = 0; layer < map.layers; layer++) {
    for (let head = 0; head < map.heads; head++) {
      const { entropy, idle } = habits(map, layer, head, every);
      const score = -entropy / most - (map.rows === map.columns ? idle : 0);
      if (score > best.score) best = { score, layer, head };
    }
  }
  return best;
}
