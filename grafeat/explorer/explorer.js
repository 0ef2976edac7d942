// The attention explorer. One module, no dependency: JupyterLab loads it through anywidget, an exported page holds it
// inline. It draws from a "port": the state (shared with Python, if there is a kernel) and the data of each picture.

const MISSING = -1; // a weight that was not kept
const NOWHERE = 65535;
const [UNKNOWN, ABSENT] = [-1, -2]; // in the place of a colour: no number, hatched; nothing to show, left out
const TYPES = { uint8: Uint8Array, uint16: Uint16Array, int16: Int16Array, float32: Float32Array };
const KINDS = ["intra", "cross"];
const MOST = 64; // edges of a kind that can be drawn
const OUTLINED = 224; // longest side, in pixels, at which outlines are found
const KEPT = 64; // vertices that were asked for and are kept
const PLAY = 900; // milliseconds on each layer
const TINTS = ["#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00", "#DDDDDD"]; // Tol's light scheme

// ---------------------------------------------------------------------------------------------- ports

/** The port of a live notebook: state and data come from the kernel. */
function livePort(model) {
  const view = Math.random().toString(36).slice(2);
  const waiting = new Map();
  let count = 0;
  let saving = false;
  const answer = (message, buffers) => {
    const asked = waiting.get(message.id);
    if (!asked) return;
    waiting.delete(message.id);
    if (message.error) asked.reject(new Error(message.error));
    else asked.resolve({ ...message, buffer: buffers.length ? aligned(buffers[0]) : null });
  };
  model.on("msg:custom", answer);
  const ask = (what) =>
    new Promise((resolve, reject) => {
      const id = `${view}-${count++}`;
      waiting.set(id, { resolve, reject });
      model.send({ ...what, id });
    });
  return {
    live: true,
    facts: model.get("_facts"),
    get: (key) => model.get(key),
    set(key, value) {
      model.set(key, value);
      if (saving) return;
      saving = true;
      requestAnimationFrame(() => {
        saving = false;
        model.save_changes();
      });
    },
    on(key, listener) {
      model.on(`change:${key}`, listener);
      return () => model.off(`change:${key}`, listener);
    },
    picture: (number) => ask({ ask: "picture", number }),
    vertex: (number, vertex) => ask({ ask: "vertex", number, vertex }),
    graph: (number, layer, head) => ask({ ask: "graph", number, layer, head }),
    thumbnails: (numbers) => ask({ ask: "thumbnails", numbers }),
    close: () => model.off("msg:custom", answer),
  };
}

/** The port of an exported page: everything is in the page. */
function pagePort(root) {
  const { facts, state, pictures, thumbnails } = JSON.parse(root.querySelector(".grafeat-facts").textContent);
  const listeners = new Map();
  const data = async (number) => {
    const script = root.querySelector(`script[data-picture="${number}"]`);
    return { ...pictures[number], buffer: await inflated(bytesOf(script.textContent)) };
  };
  let first = data(state.picture); // unpacked while the page is built
  return {
    live: false,
    facts: { ...facts, shown: Object.keys(pictures).map(Number) },
    get: (key) => state[key],
    set(key, value) {
      state[key] = value;
      for (const listener of listeners.get(key) ?? []) listener();
    },
    on(key, listener) {
      listeners.set(key, [...(listeners.get(key) ?? []), listener]);
      return () => listeners.set(key, listeners.get(key).filter((other) => other !== listener));
    },
    picture(number) {
      const found = first && number === state.picture ? first : data(number);
      first = null;
      return found;
    },
    vertex: () => Promise.reject(new Error("this page holds no more than it shows")),
    graph: () => Promise.resolve(null),
    thumbnails: (numbers) => Promise.resolve({ thumbnails: numbers.map((number) => thumbnails[number]) }),
    close() {},
  };
}

function aligned(view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return view.byteOffset % 8 ? bytes.slice().buffer : view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

function bytesOf(base64) {
  const text = atob(base64.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function arraysOf(places, buffer) {
  const arrays = {};
  for (const [name, [type, shape, offset]] of Object.entries(places)) {
    const size = shape.reduce((product, length) => product * length, 1);
    arrays[name] = new TYPES[type](buffer, offset, size);
  }
  return arrays;
}

// -------------------------------------------------------------------------------------------- weights

/** What all forms of weights share: the numbering of vertices, and the mean over heads. */
class Weights {
  constructor(graph, heads, arrays) {
    Object.assign(this, { graph, heads, arrays, n: graph.n });
  }

  /** What a vertex attends to, over all vertices. `head` null is the mean over heads. */
  row(layer, head, vertex) {
    return this.mean(head, (h, out, factor) => this.addRow(layer, h, vertex, out, factor));
  }

  /** Which vertices attend to a vertex. */
  column(layer, head, vertex) {
    return this.mean(head, (h, out, factor) => this.addColumn(layer, h, vertex, out, factor));
  }

  mean(head, add) {
    const out = new Float32Array(this.n);
    if (head !== null) add(head, out, 1);
    else for (let h = 0; h < this.heads; h++) add(h, out, 1 / this.heads);
    return out;
  }

  /** The mass that a vertex sends to a backbone, or receives from it, where it is kept beside rounded weights. */
  massOf(layer, head, vertex, backbone, outgoing) {
    const sums = this.arrays[outgoing ? "mass" : "received"];
    if (!sums) return null;
    const count = this.graph.slices.length;
    return sums[((layer * (this.heads + 1) + (head ?? this.heads)) * this.n + vertex) * count + backbone];
  }

  /** Whether rows of this vertex can be had at once. */
  ready() {
    return true;
  }
}

/** The weights themselves, in 8 bits, each row scaled by its maximum. */
class RowWeights extends Weights {
  addRow(layer, head, i, out, factor) {
    const { weights, scale } = this.arrays;
    const at = (layer * this.heads + head) * this.n + i;
    const { start, stop } = this.graph.own(i);
    const intra = (scale[2 * at] * factor) / 255;
    const cross = (scale[2 * at + 1] * factor) / 255;
    for (let j = 0, from = at * this.n; j < this.n; j++)
      out[j] += weights[from + j] * (j >= start && j < stop ? intra : cross);
  }

  addColumn(layer, head, j, out, factor) {
    const { weights, scale } = this.arrays;
    const { start, stop } = this.graph.own(j);
    for (let i = 0, at = (layer * this.heads + head) * this.n; i < this.n; i++, at++) {
      const kind = i >= start && i < stop ? 0 : 1;
      out[i] += (weights[at * this.n + j] * scale[2 * at + kind] * factor) / 255;
    }
  }
}

/** Queries and keys in 16 bits: weight = exp(q·k / √width + bias − lse). */
class StateWeights extends Weights {
  constructor(graph, heads, arrays, width) {
    super(graph, heads, arrays);
    this.width = width;
    this.vector = new Float32Array(width);
  }

  at(layer, kind, head) {
    return ((layer * 2 + kind) * this.heads + head) * this.n;
  }

  /** One vertex's vector, as numbers, divided by √width. */
  taken(symbol, at) {
    const { width, vector } = this;
    const scale = this.arrays[`${symbol}_scale`][at] / Math.sqrt(width);
    const states = this.arrays[symbol];
    for (let c = 0; c < width; c++) vector[c] = states[at * width + c] * scale;
    return vector;
  }

  dot(states, at) {
    const { width, vector } = this;
    let sum = 0;
    for (let c = 0, from = at * width; c < width; c++) sum += states[from + c] * vector[c];
    return sum;
  }

  addRow(layer, head, i, out, factor) {
    const { k, k_scale, lse, bias } = this.arrays;
    const query = this.graph.backboneOf[i];
    for (const kind of this.graph.kinds) {
      const base = this.at(layer, kind, head);
      this.taken("q", base + i);
      for (const [key, { start, stop }] of this.graph.slices.entries()) {
        if ((key === query) !== (kind === 0)) continue;
        const constant = bias[(kind * this.graph.slices.length + query) * this.graph.slices.length + key] - lse[base + i];
        for (let j = start; j < stop; j++)
          out[j] += Math.exp(this.dot(k, base + j) * k_scale[base + j] + constant) * factor;
      }
    }
  }

  addColumn(layer, head, j, out, factor) {
    const { q, q_scale, lse, bias } = this.arrays;
    const key = this.graph.backboneOf[j];
    for (const kind of this.graph.kinds) {
      const base = this.at(layer, kind, head);
      this.taken("k", base + j);
      for (const [query, { start, stop }] of this.graph.slices.entries()) {
        if ((key === query) !== (kind === 0)) continue;
        const constant = bias[(kind * this.graph.slices.length + query) * this.graph.slices.length + key];
        for (let i = start; i < stop; i++)
          out[i] += Math.exp(this.dot(q, base + i) * q_scale[base + i] + constant - lse[base + i]) * factor;
      }
    }
  }
}

/** The strongest weights of each row and kind; what was not kept is MISSING. */
class StrongestWeights extends Weights {
  constructor(graph, heads, arrays, k) {
    super(graph, heads, arrays);
    this.k = k;
  }

  /** The mean over heads is kept like a head, the last one. */
  mean(head, add) {
    const out = new Float32Array(this.n);
    add(head ?? this.heads, out, 1);
    for (let j = 0; j < this.n; j++) if (out[j] === 0) out[j] = MISSING;
    return out;
  }

  addRow(layer, head, i, out, factor) {
    this.visit(layer, head, i, (j, weight) => (out[j] += weight * factor));
  }

  addColumn(layer, head, j, out, factor) {
    for (let i = 0; i < this.n; i++)
      this.visit(layer, head, i, (other, weight) => {
        if (other === j) out[i] += weight * factor;
      });
  }

  visit(layer, head, i, each) {
    const { where, weights, scale } = this.arrays;
    for (const kind of this.graph.kinds) {
      const at = ((layer * (this.heads + 1) + head) * this.n + i) * 2 + kind;
      for (let slot = at * this.k; slot < (at + 1) * this.k && where[slot] !== NOWHERE; slot++)
        each(where[slot], (weights[slot] * scale[at]) / 255);
    }
  }

  /** The share of a row's mass that was kept, of one kind. */
  kept(layer, head, i, kind) {
    return this.arrays.kept[((layer * (this.heads + 1) + (head ?? this.heads)) * this.n + i) * 2 + kind];
  }
}

/** Rows and columns of one vertex at a time, asked of the kernel. */
class RemoteWeights extends Weights {
  constructor(graph, heads, arrays, fetch) {
    super(graph, heads, arrays);
    Object.assign(this, { fetch, vertices: new Map(), pending: null });
  }

  ready(vertex) {
    const found = this.vertices.get(vertex);
    if (found) this.vertices.delete(vertex), this.vertices.set(vertex, found); // the last used stay longest
    return Boolean(found);
  }

  /** Fetches a vertex; of several asked for meanwhile only the last is fetched. */
  async load(vertex) {
    this.wanted = vertex;
    if (this.pending) return this.pending;
    this.pending = (async () => {
      while (this.wanted !== null && !this.ready(this.wanted)) {
        const now = this.wanted;
        const { places, buffer } = await this.fetch(now);
        this.vertices.set(now, arraysOf(places, buffer));
        if (this.vertices.size > KEPT) this.vertices.delete(this.vertices.keys().next().value);
        if (this.wanted === now) this.wanted = null;
      }
    })();
    try {
      await this.pending;
    } finally {
      this.pending = null;
    }
  }

  massOf(layer, head, vertex, backbone, outgoing) {
    const sums = this.vertices.get(vertex)[outgoing ? "mass" : "received"];
    const count = this.graph.slices.length;
    const of = (h) => sums[(layer * this.heads + h) * count + backbone];
    return head === null ? sum([...Array(this.heads).keys()].map(of)) / this.heads : of(head);
  }

  addRow(layer, head, vertex, out, factor) {
    this.add("row", layer, head, vertex, out, factor);
  }

  addColumn(layer, head, vertex, out, factor) {
    this.add("column", layer, head, vertex, out, factor);
  }

  add(which, layer, head, vertex, out, factor) {
    const { [which]: values, [`${which}_scale`]: scale } = this.vertices.get(vertex);
    const { start, stop } = this.graph.own(vertex);
    const at = layer * this.heads + head;
    for (let j = 0; j < this.n; j++)
      out[j] += (values[at * this.n + j] * scale[2 * at + (j >= start && j < stop ? 0 : 1)] * factor) / 255;
  }
}

function weightsOf(data, graph, facts, port) {
  const arrays = data.arrays;
  if (data.form === "rows") return new RowWeights(graph, facts.heads, arrays);
  if (data.form === "states") return new StateWeights(graph, facts.heads, arrays, data.width);
  if (data.form === "strongest") return new StrongestWeights(graph, facts.heads, arrays, data.k);
  return new RemoteWeights(graph, facts.heads, arrays, (vertex) => port.vertex(data.number, vertex));
}

/** The vertices of all backbones, numbered backbone by backbone, each grid row by row. */
class Graph {
  constructor(facts) {
    this.backbones = facts.backbones;
    this.kinds = facts.kinds.map((kind) => KINDS.indexOf(kind));
    this.slices = [];
    let start = 0;
    for (const { rows, columns } of facts.backbones) {
      this.slices.push({ start, stop: start + rows * columns });
      start += rows * columns;
    }
    this.n = start;
    this.backboneOf = new Uint8Array(start);
    for (const [number, slice] of this.slices.entries()) this.backboneOf.fill(number, slice.start, slice.stop);
  }

  own(vertex) {
    return this.slices[this.backboneOf[vertex]];
  }

  vertex([name, row, column]) {
    const number = this.backbones.findIndex((backbone) => backbone.name === name);
    return number < 0 ? null : this.slices[number].start + row * this.backbones[number].columns + column;
  }

  place(vertex) {
    const number = this.backboneOf[vertex];
    const { name, columns } = this.backbones[number];
    const inside = vertex - this.slices[number].start;
    return [name, Math.floor(inside / columns), inside % columns];
  }

  /** The box (x0, y0, x1, y1) of a vertex in the picture, in [0, 1]. */
  box(vertex) {
    const [, row, column] = this.place(vertex);
    const { rows, columns, field } = this.backbones[this.backboneOf[vertex]];
    const [x0, y0, x1, y1] = field;
    const [w, h] = [(x1 - x0) / columns, (y1 - y0) / rows];
    return [x0 + column * w, y0 + row * h, x0 + (column + 1) * w, y0 + (row + 1) * h];
  }
}

// --------------------------------------------------------------------------------------------- helpers

/** An element with attributes and children; `on…` attributes are listeners. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (["button", "input"].includes(tag) || "tabindex" in attributes) element.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function percent(share) {
  if (Number.isNaN(share)) return "NaN";
  const digits = share > 0 && share < 0.0995 ? 1 : 0;
  return `${(100 * share).toFixed(digits)}%`;
}

function number(value) {
  if (Number.isNaN(value)) return "NaN";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 0.001 ? value.toPrecision(size >= 1 ? 3 : 2) : value.toExponential(0);
  return String(Number(text)).replace("-", "−");
}

const times = (value) => `${value >= 10 ? value.toFixed(0) : value.toFixed(1)}×`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** The middle of a long name left out. */
function short(name, length = 24) {
  return name.length <= length ? name : `${name.slice(0, Math.ceil(length / 2) - 1)}…${name.slice(1 - Math.floor(length / 2))}`;
}

/** A canvas of so many CSS pixels, sharp on any screen. */
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, k] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== k) Object.assign(canvas, { width: w, height: k });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** The numbers of the k largest values, largest first; MISSING and NaN are left out. */
function strongest(values, k, eligible = () => true) {
  const found = [];
  for (let j = 0; j < values.length; j++) {
    const value = values[j];
    if (!(value > 0) || !eligible(j)) continue;
    if (found.length === k && value <= values[found[k - 1]]) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]] < value) at--;
    found.splice(at, 0, j);
    if (found.length > k) found.pop();
  }
  return found;
}

/** The outlines of a picture as two transparent canvases, one in white ink and one in black. */
function outlinesOf(image) {
  const scale = OUTLINED / Math.max(image.width, image.height);
  const [width, height] = [image.width, image.height].map((side) => Math.max(8, Math.round(side * scale)));
  const grey = greyOf(image, width, height);
  const smooth = blurred(blurred(grey, width, height), width, height);
  const slope = new Float32Array(width * height);
  for (let y = 1; y < height - 1; y++)
    for (let x = 1; x < width - 1; x++) {
      const at = y * width + x;
      slope[at] = Math.hypot(smooth[at + 1] - smooth[at - 1], smooth[at + width] - smooth[at - width]);
    }
  const limit = Float32Array.from(slope).sort()[Math.floor(0.985 * slope.length)];
  const [white, black] = [255, 0].map((ink) => inked(slope, limit, ink, width, height));
  return { white, black };
}

function scaled(image, width, height) {
  const to = h("canvas", { width, height });
  const context = to.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return to;
}

function greyOf(image, width, height) {
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return Float32Array.from({ length: width * height }, (_, i) => 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
}

function blurred(values, width, height, radius = 2) {
  const along = (from, length, lines, step, stride) => {
    const to = new Float32Array(from.length);
    for (let line = 0; line < lines; line++)
      for (let i = 0; i < length; i++) {
        let total = 0;
        for (let o = -radius; o <= radius; o++) total += from[line * stride + clamp(i + o, 0, length - 1) * step];
        to[line * stride + i * step] = total / (2 * radius + 1);
      }
    return to;
  };
  return along(along(values, width, height, 1, width), height, width, width, 1);
}

function inked(slope, limit, ink, width, height) {
  const canvas = h("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < slope.length; i++) {
    const strength = limit > 0.02 ? Math.min(slope[i] / limit, 1) ** 1.5 : 0;
    image.data.set([ink, ink, ink, 0.42 * 255 * strength], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** What an encoded picture is, by its first byte. */
const typeOf = (bytes) => (bytes[0] === 0x89 ? "image/png" : "image/webp");

/** 256 colours out of hexadecimal text. */
function colourMap(text) {
  const map = new Uint8Array(768);
  for (let i = 0; i < 768; i++) map[i] = parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return map;
}

const luminance = (map, index) => 0.299 * map[3 * index] + 0.587 * map[3 * index + 1] + 0.114 * map[3 * index + 2];

/** Entropy of a share of mass, as the number of patches that an even split would need. */
function effective(weights) {
  if (weights.some(Number.isNaN)) return NaN;
  const total = sum(weights);
  if (!total) return 0;
  const entropy = sum(weights.filter((weight) => weight > 0).map((weight) => -(weight / total) * Math.log(weight / total)));
  return Math.exp(entropy);
}

// ----------------------------------------------------------------------------------------------- grids

/** One backbone's grid: a heatmap in place over the picture. */
class Panel {
  constructor(explorer, number) {
    Object.assign(this, { explorer, number, backbone: explorer.facts.backbones[number] });
    const { name, rows, columns } = this.backbone;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.title = h("span", { class: "name", title: name });
    this.note = h("span", { class: "note" });
    this.stage = h(
      "div",
      {
        class: "stage",
        tabindex: "0",
        role: "application",
        "aria-roledescription": "grid of patches",
        "aria-label": `${name}, ${rows} by ${columns} patches. Arrow keys move the selected patch.`,
        onpointermove: (event) => explorer.point(this, event),
        onpointerdown: (event) => explorer.press(this, event),
        onpointerleave: () => explorer.leave(this),
        onkeydown: (event) => explorer.arrows(this, event),
        onfocus: () => explorer.enter(this),
      },
      this.canvas,
    );
    this.element = h(
      "figure",
      { class: "panel", style: `--mark: var(--mark-${number}); --text: var(--text-${number})` },
      h("figcaption", {}, this.title, h("span", { class: "size" }, `${rows} × ${columns}`), this.note),
      this.stage,
    );
    this.small = h("canvas", { width: columns, height: rows });
    this.pixels = new ImageData(columns, rows);
  }

  resize(width, height) {
    this.size = [width, height];
    sized(this.canvas, width, height);
    this.fitted = null;
    this.outlines = this.picture = null;
  }

  /** Leaves out the middle of a name that has no room beside the note. */
  fit() {
    const { name } = this.backbone;
    const seen = `${this.size[0]} ${this.note.textContent.length}`;
    if (this.fitted === seen) return;
    this.fitted = seen;
    this.title.textContent = name;
    for (let length = name.length - 1; length > 7 && this.title.scrollWidth > this.title.clientWidth; length--) this.title.textContent = short(name, length);
  }

  /** The grid's box on the canvas, in CSS pixels. */
  get field() {
    const [x0, y0, x1, y1] = this.backbone.field;
    const [width, height] = this.size;
    return [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height];
  }

  /** The patch under a pointer: a vertex, or null beside the grid. */
  vertexAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const [left, top, width, height] = this.field;
    const column = Math.floor(((event.clientX - box.left - left) / width) * this.backbone.columns);
    const row = Math.floor(((event.clientY - box.top - top) / height) * this.backbone.rows);
    if (column < 0 || row < 0 || column >= this.backbone.columns || row >= this.backbone.rows) return null;
    return this.explorer.graph.slices[this.number].start + row * this.backbone.columns + column;
  }

  /** Colours of the patches: `paint(vertex)` gives an index into the colour map, or UNKNOWN, or ABSENT. */
  draw(paint, map) {
    const { rows, columns } = this.backbone;
    const { start } = this.explorer.graph.slices[this.number];
    const { opacity } = this.explorer.look;
    const indices = new Int16Array(rows * columns);
    for (let i = 0; i < rows * columns; i++) {
      const index = paint(start + i);
      indices[i] = index;
      const known = index >= 0;
      for (let c = 0; c < 3; c++) this.pixels.data[4 * i + c] = known ? map[3 * index + c] : 0;
      this.pixels.data[4 * i + 3] = known ? 255 : 0;
    }
    this.small.getContext("2d").putImageData(this.pixels, 0, 0);
    const [width, height] = this.size;
    const [left, top, w, k] = this.field;
    const context = this.context();
    const hidden = opacity === 0 && same(this.backbone.field, [0, 0, 1, 1]) && indices.every((index) => index >= 0);
    if (!hidden) this.drawPicture(context, 1);
    context.imageSmoothingEnabled = false;
    context.globalAlpha = 1 - opacity;
    context.drawImage(this.small, left, top, w, k);
    context.globalAlpha = 1;
    if (this.explorer.look.outlines && this.explorer.image && this.explorer.outlines) this.drawOutlines(context, indices, map);
    this.drawUnknown(context, indices);
    this.drawLines(context);
  }

  context() {
    const ratio = window.devicePixelRatio || 1;
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }

  drawPicture(context, alpha) {
    const { image } = this.explorer;
    const [width, height] = this.size;
    context.fillStyle = this.explorer.colour("--blank");
    context.fillRect(0, 0, width, height);
    if (!image) return;
    const ratio = window.devicePixelRatio || 1;
    this.picture ??= scaled(image, Math.round(width * ratio), Math.round(height * ratio));
    context.globalAlpha = alpha;
    context.drawImage(this.picture, 0, 0, width, height);
    context.globalAlpha = 1;
  }

  /** White outlines on dark patches, dark ones on light patches: between them the patch's colour is exact. */
  drawOutlines(context, indices, map) {
    this.outlines ??= Object.fromEntries(Object.entries(this.explorer.outlines).map(([ink, canvas]) => [ink, scaled(canvas, ...this.size)]));
    const { rows, columns } = this.backbone;
    const [left, top, width, height] = this.field;
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const index = indices[row * columns + column];
        if (index < 0) continue;
        const ink = luminance(map, index) < 128 ? this.outlines.white : this.outlines.black;
        const [x0, y0] = [left + (column * width) / columns, top + (row * height) / rows];
        const [w, k] = [width / columns, height / rows];
        context.drawImage(ink, x0, y0, w, k, x0, y0, w, k);
      }
  }

  /** Weights that are no numbers are hatched. */
  drawUnknown(context, indices) {
    if (!indices.includes(UNKNOWN)) return;
    const { rows, columns } = this.backbone;
    const [left, top, width, height] = this.field;
    context.save();
    context.beginPath();
    for (let i = 0; i < indices.length; i++)
      if (indices[i] === UNKNOWN)
        context.rect(left + ((i % columns) * width) / columns, top + (Math.floor(i / columns) * height) / rows, width / columns, height / rows);
    context.clip();
    context.fillStyle = this.explorer.colour("--blank");
    context.fillRect(left, top, width, height);
    context.strokeStyle = this.explorer.colour("--second");
    context.beginPath();
    for (let x = left - height; x < left + width; x += 8) context.moveTo(x, top + height), context.lineTo(x + height, top);
    context.stroke();
    context.restore();
  }

  drawLines(context) {
    const { rows, columns } = this.backbone;
    const [left, top, width, height] = this.field;
    context.strokeStyle = "rgba(255, 255, 255, 0.3)";
    context.lineWidth = Math.min(1, width / columns / 12);
    context.beginPath();
    for (let row = 1; row < rows; row++) context.moveTo(left, top + (row * height) / rows), context.lineTo(left + width, top + (row * height) / rows);
    for (let column = 1; column < columns; column++)
      context.moveTo(left + (column * width) / columns, top), context.lineTo(left + (column * width) / columns, top + height);
    context.stroke();
  }
}

// -------------------------------------------------------------------------------------------- explorer

const CHOICES = {
  view: [["patch", "Patch"], ["graph", "Graph"]],
  direction: [["outgoing", "attends to"], ["incoming", "attended by"]],
  scale: [["row", "scale row"], ["head", "head"], ["shared", "shared"]],
  logarithmic: [[false, "linear"], [true, "log"]],
  paint: [["communities", "communities"], ["pagerank", "PageRank"]],
};
const STATE = ["picture", "layer", "head", "selected", "pins", "locked", "edges", "opacity", "outlines", "compare", ...Object.keys(CHOICES)];
const CONTROLS = STATE.filter((key) => key !== "selected");
const KEYS = [
  ["← ↑ → ↓", "patch"], ["[ ]", "layer"], [", .", "head"], ["M", "mean of heads"], ["D", "direction"], ["P", "pin"],
  ["C", "compare"], ["− +", "edges"], ["S", "scale"], ["L", "log"], ["O", "picture only"], ["G", "graph"],
  ["Space", "play"], ["B N", "picture"], ["Enter", "lock"], ["Esc", "unlock"],
];

class Explorer {
  constructor(port, root) {
    Object.assign(this, { port, root, facts: port.facts, data: null, pointer: null, playing: null, closed: false });
    this.graph = new Graph(this.facts);
    this.maps = { sequential: colourMap(this.facts.maps.sequential), diverging: colourMap(this.facts.maps.diverging) };
    this.build();
    this.cleanups = STATE.map((key) => port.on(key, () => this.changed(key)));
    this.observe();
    this.layout();
    this.show(this.state("picture"));
  }

  state(key) {
    return this.port.get(key);
  }

  set(key, value) {
    if (!same(this.state(key), value)) this.port.set(key, value);
  }

  get look() {
    if (this.peeking) return { opacity: 1, outlines: false };
    return { opacity: this.state("opacity"), outlines: this.state("outlines") };
  }

  /** The picture's outlines; null at first, so that the heatmaps need not wait for them. */
  get outlines() {
    if (this.inks === undefined) {
      this.inks = null;
      const { image } = this;
      setTimeout(() => {
        if (this.image !== image || this.closed) return;
        this.inks = outlinesOf(image);
        this.draw();
      });
    }
    return this.inks;
  }

  get selected() {
    return this.graph.vertex(this.state("selected"));
  }

  /** The pin that a comparison subtracts: the last one on the same grid as the selected patch. */
  get compared() {
    if (!this.state("compare") || this.state("view") !== "patch") return null;
    const backbone = this.graph.backboneOf[this.selected];
    const pins = this.state("pins").map((pin) => this.graph.vertex(pin));
    return pins.filter((pin) => this.graph.backboneOf[pin] === backbone && pin !== this.selected).pop() ?? null;
  }

  /** Whether this weight was never kept. */
  unkept(weight) {
    return this.missing && weight === MISSING;
  }

  /** Whether some weights on screen were never kept. */
  get missing() {
    return this.data?.form === "strongest";
  }

  colour(variable) {
    return this.colours[variable] ?? (this.colours[variable] = getComputedStyle(this.root).getPropertyValue(variable).trim());
  }

  markOf(backbone) {
    return this.colour(`--mark-${backbone}`);
  }

  // ---- building

  build() {
    const { root, facts } = this;
    root.classList.add("grafeat");
    root.setAttribute("role", "region");
    root.setAttribute("aria-label", "Attention explorer");
    root.onkeydown = (event) => this.key(event);
    root.addEventListener("focusout", () => this.peek(false));
    root.onkeyup = (event) => event.key.toLowerCase() === "o" && this.peek(false);
    this.sentence = h("p", { class: "sentence" });
    this.live = h("p", { class: "unseen", "aria-live": "polite", role: "status" });
    this.panels = facts.backbones.map((_, backbone) => new Panel(this, backbone));
    this.overlay = h("canvas", { class: "overlay", "aria-hidden": "true" });
    this.label = h("output", { class: "value", hidden: true });
    this.gridsBox = h("div", { class: "grids" }, ...this.panels.map((panel) => panel.element), this.overlay, this.label);
    this.side = h("aside", { class: "side", "aria-label": "Picture, prediction and attention mass" }, ...this.buildSide());
    const main = h("div", { class: "main" }, this.gridsBox, this.buildLegend(), this.buildTools(), this.buildNavigator());
    const keys = h("div", { class: "keys", "aria-label": "Keys" }, ...KEYS.map(([keys, does]) => h("span", {}, ...keys.split(" ").map((k) => h("kbd", {}, k)), ` ${does}`)));
    root.replaceChildren(this.sentence, h("div", { class: "body" }, main, this.side), keys, this.live);
    this.paintTheme();
  }

  buildLegend() {
    this.caption = h("p", { class: "caption" });
    this.bars = KINDS.map((kind) => ({ kind, canvas: h("canvas", { "aria-hidden": "true" }), box: null }));
    for (const bar of this.bars) bar.box = h("div", { class: "bar" }, bar.canvas);
    return h("div", { class: "legend" }, this.caption, h("div", { class: "bars" }, ...this.bars.map((bar) => bar.box)));
  }

  /** Buttons of which one is pressed. */
  choice(key, label) {
    const buttons = CHOICES[key].map(([value, text]) =>
      h("button", { type: "button", "data-value": String(value), onclick: () => this.set(key, value) }, text),
    );
    const group = h("div", { class: "choice", role: "group", "aria-label": label, "data-key": key }, ...buttons);
    return group;
  }

  slider(key, label, low, high, step) {
    const input = h("input", { type: "range", min: low, max: high, step, "aria-label": label, "data-key": key });
    input.oninput = () => this.set(key, Number(input.value));
    return h("label", { class: "slider" }, h("span", {}, label), input, h("output", {}));
  }

  buildTools() {
    this.compareButton = h("button", { type: "button", class: "toggle", onclick: () => this.set("compare", !this.state("compare")) }, "− pin");
    this.pinButton = h("button", { type: "button", class: "toggle", title: "Keep the selected patch for comparison (P)", onclick: () => this.togglePin() }, "pin");
    const most = Math.min(MOST, this.graph.n);
    this.patchTools = h("div", { class: "group" }, this.choice("direction", "Direction"), this.pinButton, this.compareButton);
    this.graphTools = h("div", { class: "group" }, this.choice("paint", "Paint patches by"));
    this.scaleTools = h("div", { class: "group" }, this.choice("scale", "Scale colours to"), this.choice("logarithmic", "Linear or logarithmic"));
    this.tools = h(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "What is shown, and how" },
      this.choice("view", "View"), this.patchTools, this.graphTools,
      this.slider("edges", "Edges", 0, most, 1), this.scaleTools, this.slider("opacity", "Picture", 0, 1, 0.05),
    );
    return this.tools;
  }

  buildNavigator() {
    this.matrices = this.graph.kinds.map((kind) => this.buildMatrix(kind));
    const split = this.panels.length > 2 ? " · bar: split of the mass, notches: even split" : "";
    const legend = h("p", { class: "note" }, `tick: mean entropy, from 0 to that of even attention${split}`);
    return h("div", { class: "navigator" }, ...this.matrices.map((matrix) => matrix.element), legend);
  }

  buildStates() {
    this.playButton = h("button", { type: "button", class: "play", "aria-label": "Play layers", onclick: () => this.play(!this.playing) }, "▶");
    this.step = h("span", { class: "note" });
    this.statesCanvas = h("canvas", { role: "img" });
    this.statesCanvas.onclick = (event) => this.clickStates(event);
    const player = h("div", { class: "player", hidden: this.facts.layers === 1 }, this.playButton, h("span", {}, "Play layers"), this.step);
    return h("section", { class: "states" }, h("h3", {}, "Vertex states", h("span", { class: "note" }, "like colours, like states")), this.statesCanvas, player);
  }

  buildMatrix(kind) {
    const { layers, heads } = this.facts;
    const canvas = h("canvas", { "aria-hidden": "true" });
    const columns = [null, ...Array(heads).keys()];
    const cells = [];
    const grid = h("div", { class: "cells", role: "group", "aria-label": `${KINDS[kind]} attention, layers by heads` });
    grid.append(h("span", { class: "corner" }, "layer"));
    for (const head of columns) grid.append(h("span", { class: "head" }, head === null ? "mean" : String(head)));
    for (let layer = 0; layer < layers; layer++) {
      grid.append(h("span", { class: "layer" }, String(layer)));
      for (const head of columns) {
        const go = () => (this.set("layer", layer), this.set("head", head));
        const cell = h("button", { type: "button", class: "cell", onclick: go, onkeydown: (event) => this.arrowsInMatrix(event, kind) });
        cells.push({ layer, head, cell });
        grid.append(cell);
      }
    }
    const note = kind === 0 ? "on its own grid" : "on the other grids";
    const element = h("section", { class: "matrix", "aria-label": `${KINDS[kind]} attention of every layer and head` }, h("h3", {}, kind === 0 ? "Intra" : "Cross", h("span", { class: "note" }, note)), h("div", { class: "sheet" }, canvas, grid));
    return { kind, canvas, cells, grid, element };
  }

  buildSide() {
    this.strip = h("div", { class: this.facts.images ? "strip" : "strip coarse", role: "group", "aria-label": "Pictures" });
    this.where = h("span", { class: "note" });
    this.previous = h("button", { type: "button", class: "turn", "aria-label": "Previous picture", onclick: () => this.turn(-1) }, "‹");
    this.next = h("button", { type: "button", class: "turn", "aria-label": "Next picture", onclick: () => this.turn(1) }, "›");
    this.truth = h("span", { class: "note" });
    this.prediction = h("div", { class: "prediction" });
    this.massTitle = h("h3", {}, "Attention mass", h("span", { class: "note" }, "routing, not importance"));
    this.mass = h("div", { class: "mass" });
    this.dotsNote = h("p", { class: "note" });
    this.dots = h("canvas", { "aria-hidden": "true" });
    return [
      h("section", {}, h("h3", {}, "Picture", this.where), h("div", { class: "stripline" }, this.previous, this.strip, this.next)),
      h("section", {}, h("h3", {}, "Prediction", this.truth), this.prediction),
      h("section", {}, this.massTitle, this.mass),
      this.buildStates(),
      h("section", {}, h("h3", {}, "Edge under the pointer", h("span", { class: "note" }, "each dot a head")), this.dotsNote, this.dots),
    ];
  }

  // ---- surroundings

  observe() {
    this.resizes = new ResizeObserver(() => this.layout());
    for (const element of [this.root, this.gridsBox]) this.resizes.observe(element);
    this.themes = new MutationObserver(() => this.paintTheme());
    this.themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
    this.media = window.matchMedia("(prefers-color-scheme: dark)");
    this.onMedia = () => this.paintTheme();
    this.media.addEventListener("change", this.onMedia);
  }

  close() {
    this.closed = true;
    this.play(false);
    for (const cleanup of this.cleanups) cleanup();
    this.resizes.disconnect();
    this.themes.disconnect();
    this.media.removeEventListener("change", this.onMedia);
    this.port.close();
  }

  paintTheme() {
    const { jpThemeLight } = document.body.dataset;
    const dark = jpThemeLight ? jpThemeLight === "false" : window.matchMedia("(prefers-color-scheme: dark)").matches;
    this.root.dataset.theme = dark ? "dark" : "light";
    for (const [backbone, { colour }] of this.facts.backbones.entries()) {
      this.root.style.setProperty(`--mark-${backbone}`, dark ? colour.mark_on_dark : colour.mark);
      this.root.style.setProperty(`--text-${backbone}`, dark ? colour.text_on_dark : colour.text);
    }
    this.colours = {};
    this.draw();
    setTimeout(() => this.draw(), 300); // JupyterLab hides its panels while it changes its theme
  }

  /** Sizes of the grids and of the navigator, for the room there is. */
  layout() {
    const room = this.root.clientWidth;
    if (!room || this.closed) return;
    const seen = [room, this.data, window.devicePixelRatio];
    if (seen.every((part, i) => part === this.laid?.[i])) return this.drawOverlay();
    this.laid = seen;
    const wide = room >= 820;
    this.root.dataset.wide = wide;
    const gap = 20;
    const width = room - (wide ? 248 + 32 : 0);
    const count = this.panels.length;
    const rows = Math.ceil(count / clamp(Math.floor((width + gap) / (150 + gap)), 1, count));
    const across = Math.ceil(count / rows);
    const aspect = this.data?.aspect ?? this.facts.aspect;
    const side = Math.floor(Math.min((width - gap * (across - 1)) / across, 420, Math.max(420 / aspect, 120)));
    this.gridsBox.style.gridTemplateColumns = `repeat(${across}, ${side}px)`;
    for (const panel of this.panels) panel.resize(side, Math.round(side * aspect));
    this.layoutMatrices(width, aspect);
    this.draw();
  }

  layoutMatrices(width, aspect) {
    const columns = this.facts.heads + 1;
    for (const matrix of this.matrices) {
      const grids = matrix.kind === 0 ? 1 : Math.max(1, this.panels.length - 1);
      const half = this.panels.length === 2 && width >= 560 ? (width - 24) / 2 : width;
      const room = (half - 36) / columns - 4;
      const thumb = Math.floor(clamp((room - 2 * (grids - 1)) / grids, 14, 56));
      matrix.thumb = [thumb, Math.round(clamp(thumb * aspect, 12, 60))];
      const cell = [Math.max(24, grids * thumb + 2 * (grids - 1)), matrix.thumb[1] + 9];
      Object.assign(matrix, { cellSize: cell, pitch: [cell[0] + 4, cell[1] + 5] });
      matrix.grid.style.gridTemplateColumns = `32px repeat(${columns}, ${cell[0]}px)`;
      matrix.grid.style.gridTemplateRows = `18px repeat(${this.facts.layers}, ${cell[1]}px)`;
    }
  }

  // ---- pictures

  /** Fetches a picture's data and draws it; the last one asked for wins. */
  async show(picture) {
    this.wanted = picture;
    this.busy(true);
    try {
      const data = await this.port.picture(picture);
      const arrays = arraysOf(data.places, data.buffer);
      const image = arrays.image ? await createImageBitmap(new Blob([arrays.image], { type: typeOf(arrays.image) })) : null;
      if (this.wanted !== picture || this.closed) return;
      this.data = { ...data, arrays };
      this.failure = null;
      this.image = image;
      this.inks = undefined;
      this.weights = weightsOf(this.data, this.graph, this.facts, this.port);
      this.measures = null;
      this.drawn = null;
      this.layout();
      this.fillStrip();
      this.drawPrediction();
    } catch (error) {
      if (!this.closed && this.wanted === picture) this.fail(error);
    } finally {
      if (this.wanted === picture) this.busy(false);
    }
  }

  busy(waiting) {
    clearTimeout(this.patience);
    this.root.removeAttribute("data-waiting");
    if (waiting)
      this.patience = setTimeout(() => {
        this.root.dataset.waiting = "true";
        this.say("Waiting for the kernel. If it was restarted, run the cell again.");
      }, 1500);
  }

  fail(error) {
    this.failure = `This cannot be shown: ${error.message}`;
    this.say(this.failure);
  }

  get shown() {
    return this.facts.shown ?? [...Array(this.facts.pictures).keys()];
  }

  turn(by) {
    const { shown } = this;
    const at = shown.indexOf(this.state("picture"));
    this.set("picture", shown[clamp(at + by, 0, shown.length - 1)]);
  }

  async fillStrip() {
    const { shown } = this;
    const current = this.state("picture");
    const at = shown.indexOf(current);
    const first = Math.floor(at / 4) * 4;
    const numbers = shown.slice(first, first + 4);
    this.where.textContent = `number ${current} · ${at + 1} of ${shown.length.toLocaleString("en")}`;
    this.previous.disabled = at === 0;
    this.next.disabled = at === shown.length - 1;
    if (!same(this.listed, numbers)) {
      this.listed = numbers;
      const { thumbnails } = await this.port.thumbnails(numbers).catch(() => {
        this.listed = null; // asked again with the next picture
        return { thumbnails: numbers.map(() => "") };
      });
      if (!same(this.listed, numbers) || this.closed) return;
      this.strip.replaceChildren(
        ...numbers.map((picture, i) =>
          h("button", { type: "button", class: "picture", "data-picture": picture, "aria-label": `Picture ${picture}`, onclick: () => this.set("picture", picture) }, h("img", { src: `data:${typeOf(bytesOf(thumbnails[i].slice(0, 4)))};base64,${thumbnails[i]}`, alt: "" })),
        ),
      );
    }
    for (const button of this.strip.children) button.setAttribute("aria-pressed", String(Number(button.dataset.picture) === this.state("picture")));
  }

  drawPrediction() {
    const { probabilities } = this.data.arrays;
    const { classes } = this.facts;
    const { label } = this.data;
    const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
    const top = order.slice(0, 4);
    if (label !== null && !top.includes(label)) top[top.length - 1] = label;
    const bars = top.map((c) => {
      const mark = c === label ? h("span", { class: "tick", title: "true label" }, "✓") : null;
      return h(
        "div",
        { class: c === order[0] ? "class predicted" : "class" },
        h("span", { class: "what", title: classes[c] }, short(classes[c], 14), mark),
        h("span", { class: "track" }, h("span", { class: "fill", style: `width: ${100 * probabilities[c]}%` })),
        h("span", { class: "much" }, probabilities[c].toFixed(2)),
      );
    });
    const rest = 1 - sum(top.map((c) => probabilities[c]));
    const others = classes.length - top.length;
    if (others > 0) bars.push(h("div", { class: "class rest" }, h("span", { class: "what" }, `other ${others}`), h("span", { class: "track" }, h("span", { class: "fill", style: `width: ${100 * rest}%` })), h("span", { class: "much" }, Math.max(rest, 0).toFixed(2))));
    this.prediction.replaceChildren(...bars);
    const right = label === order[0];
    this.truth.textContent = label === null ? "" : right ? `true label: ${classes[label]} ✓` : `wrong: true label is ${classes[label]}`;
    this.truth.classList.toggle("wrong", label !== null && !right);
  }

  // ---- changes

  changed(key) {
    if (key === "picture") {
      if (this.state("picture") !== this.wanted) this.show(this.state("picture"));
      return;
    }
    if (this.pendingDraw) return;
    this.pendingDraw = true; // several changes of one event are drawn once, before the browser paints
    queueMicrotask(() => {
      this.pendingDraw = false;
      this.draw();
    });
  }

  draw() {
    if (!this.data || !this.laid || this.closed) return;
    const vertex = this.selected;
    if (vertex === null) return;
    this.drawControls();
    if (this.state("view") === "graph") this.drawGraphView();
    else {
      const needed = [vertex, ...this.state("pins").map((pin) => this.graph.vertex(pin))].find((other) => !this.weights.ready(other));
      if (needed !== undefined) return this.fetchVertex(needed);
      this.drawPatchView(vertex);
    }
    this.drawOverlay();
    this.soon();
  }

  async fetchVertex(vertex) {
    this.busy(true);
    try {
      await this.weights.load(vertex);
      if (!this.closed) this.draw();
    } catch (error) {
      this.fail(error);
    } finally {
      this.busy(false);
    }
  }

  /** What may come a frame later: the navigator, the side panel, the text that is read aloud. */
  soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.closed || !this.data) return;
      this.drawMatrices();
      this.drawStates();
      this.drawMass();
      this.drawDots();
      clearTimeout(this.reading);
      this.reading = setTimeout(() => (this.live.textContent = this.sentence.textContent), 500);
    });
  }

  // ---- the patch view

  values(vertex) {
    const outgoing = this.state("direction") === "outgoing";
    const [layer, head] = [this.state("layer"), this.state("head")];
    return outgoing ? this.weights.row(layer, head, vertex) : this.weights.column(layer, head, vertex);
  }

  kindOf(vertex, other) {
    return this.graph.backboneOf[vertex] === this.graph.backboneOf[other] ? 0 : 1;
  }

  /** The weight of one edge between a vertex and another if all logits were equal. */
  equal(vertex, other) {
    const { backboneOf } = this.graph;
    const [query, key] = this.state("direction") === "outgoing" ? [vertex, other] : [other, vertex];
    const kind = this.kindOf(vertex, other);
    return this.facts.equal[KINDS[kind]]?.[backboneOf[query]][backboneOf[key]] ?? 0;
  }

  drawPatchView(vertex) {
    const values = this.values(vertex);
    const pin = this.compared;
    let shown = values;
    if (pin !== null && this.weights.ready(pin)) {
      const other = this.values(pin);
      shown = values.map((value, j) => (this.unkept(value) || this.unkept(other[j]) ? NaN : value - other[j]));
    }
    const signed = shown !== values;
    this.drawn = { vertex, values, shown, signed, limits: this.limits(vertex, shown, signed) };
    const map = signed ? this.maps.diverging : this.maps.sequential;
    for (const panel of this.panels) {
      panel.draw((j) => this.index(shown[j], this.kindOf(vertex, j)), map);
      this.drawHeader(panel, vertex, values);
      panel.fit();
    }
    if (signed) this.drawDifference(vertex, pin, shown);
    else this.drawSentence(vertex, values);
    this.drawBars(map);
    if (this.failure) this.say(this.failure);
  }

  /** The ends of the colours, intra and cross. */
  limits(vertex, values, signed) {
    const scale = this.state("scale");
    const { top } = this.data.arrays;
    const { layers, heads } = this.facts;
    return [0, 1].map((kind) => {
      let high = 0;
      if (signed || scale === "row") {
        for (let j = 0; j < values.length; j++)
          if (this.kindOf(vertex, j) === kind && !Number.isNaN(values[j])) high = Math.max(high, signed ? Math.abs(values[j]) : values[j]);
      } else if (scale === "head") {
        high = top[(this.state("layer") * (heads + 1) + (this.state("head") ?? heads)) * 2 + kind];
      } else {
        for (let layer = 0; layer < layers; layer++)
          for (let head = 0; head < heads; head++) high = Math.max(high, top[(layer * (heads + 1) + head) * 2 + kind]);
      }
      const log = this.state("logarithmic") && !signed;
      const least = Math.min(...this.uniform(vertex, kind).map(([, weight]) => weight)) / 10;
      const low = signed ? -high : log ? Math.min(least, high > 0 ? high / 10 : least) : 0;
      if (high > low) return [low, high];
      return signed ? [-1, 1] : log ? [least, 10 * least] : [0, 1]; // NaN, or nothing at all
    });
  }

  /** The uniform weights of one kind: [backbone, weight] for each that takes part. */
  uniform(vertex, kind) {
    const found = [];
    for (const [backbone, { start }] of this.graph.slices.entries())
      if (this.kindOf(vertex, start) === kind && this.graph.kinds.includes(kind)) found.push([backbone, this.equal(vertex, start)]);
    return found;
  }

  /** Where a value lies between the ends of its kind's colours, in [0, 1]. */
  share(value, kind) {
    const { limits, signed } = this.drawn;
    const [low, high] = limits[kind];
    if (!signed && this.state("logarithmic")) return Math.log(value / low) / Math.log(high / low);
    return (value - low) / (high - low);
  }

  index(value, kind) {
    if (!this.graph.kinds.includes(kind) || this.unkept(value)) return ABSENT;
    if (Number.isNaN(value)) return this.missing && this.drawn.signed ? ABSENT : UNKNOWN;
    return Math.round(255 * clamp(this.share(value, kind), 0, 1));
  }

  part(values, backbone) {
    const { start, stop } = this.graph.slices[backbone];
    return Array.from(values.subarray(start, stop), (value) => (value === MISSING && this.missing ? 0 : value));
  }

  /** Mass of a row or column on a backbone, beside what equal logits would give. */
  massOn(vertex, values, backbone) {
    const { start, stop } = this.graph.slices[backbone];
    const outgoing = this.state("direction") === "outgoing";
    const lone = outgoing && (this.panels.length < 3 || this.graph.backboneOf[vertex] === backbone); // its softmax's only grid
    const exact = this.weights.massOf(this.state("layer"), this.state("head"), vertex, backbone, outgoing);
    const summed = sum(this.part(values, backbone));
    const mass = Number.isNaN(summed) ? NaN : (exact ?? (lone ? 1 : summed));
    return { mass, even: (stop - start) * this.equal(vertex, start) };
  }

  drawHeader(panel, vertex, values) {
    const kind = this.graph.backboneOf[vertex] === panel.number ? 0 : 1;
    if (!this.graph.kinds.includes(kind)) {
      panel.note.textContent = `no ${KINDS[kind]} layers`;
      return;
    }
    const { mass, even } = this.massOn(vertex, values, panel.number);
    const lone = kind === 0 || this.panels.length === 2;
    if (this.state("direction") === "incoming") panel.note.textContent = `${KINDS[kind]} ${times(mass / even)} even`;
    else panel.note.textContent = lone ? KINDS[kind] : `${KINDS[kind]} ${percent(mass)}${panel.size[0] < 260 ? "" : `, even ${percent(even)}`}`;
  }

  headName(head = this.state("head")) {
    return head === null ? `mean of ${this.facts.heads} heads` : `head ${head}`;
  }

  /** Says in words what is selected. */
  drawSentence(vertex, values) {
    const [name, row, column] = this.graph.place(vertex);
    const parts = [[name, this.graph.backboneOf[vertex]], [` patch (${row}, ${column}) · layer ${this.state("layer")}, ${this.headName()}`, null]];
    if (values.some((value) => Number.isNaN(value))) {
      this.write([...parts, [" · has NaN weights: nothing can be drawn where patches are hatched", null]]);
      return;
    }
    for (const kind of this.graph.kinds) parts.push(...this.strongestSaid(vertex, values, kind));
    this.write(parts);
  }

  /** Says where the selected patch's weights exceed the pin's most, and where they fall short most. */
  drawDifference(vertex, pin, difference) {
    const [[name, row, column], [, pinRow, pinColumn]] = [vertex, pin].map((patch) => this.graph.place(patch));
    const parts = [[name, this.graph.backboneOf[vertex]], [` patch (${row}, ${column}) minus patch (${pinRow}, ${pinColumn}) · layer ${this.state("layer")}, ${this.headName()}`, null]];
    const points = (value) => `${number(100 * Math.abs(value))} points`;
    for (const [sign, words] of [[1, "most more"], [-1, "most less"]]) {
      const [most] = strongest(difference.map((value) => sign * value), 1);
      if (most === undefined) continue;
      const [where, down, across] = this.graph.place(most);
      parts.push([` · ${words}: `, null], [where, this.graph.backboneOf[most]], [` (${down}, ${across}), ${points(difference[most])}`, null]);
    }
    this.write(parts);
  }

  strongestSaid(vertex, values, kind) {
    const [best] = strongest(values, 1, (j) => this.kindOf(vertex, j) === kind);
    if (best === undefined) return [];
    const [name, row, column] = this.graph.place(best);
    const outgoing = this.state("direction") === "outgoing";
    const parts = [[` · ${KINDS[kind]}: `, null]];
    if (kind === 1 && this.panels.length === 3 && outgoing)
      for (const [backbone] of this.facts.backbones.entries()) {
        if (backbone === this.graph.backboneOf[vertex]) continue;
        const { mass } = this.massOn(vertex, values, backbone);
        parts.push([`${percent(mass)} to `, null], [this.facts.backbones[backbone].name, backbone], [", ", null]);
      }
    parts.push([outgoing ? "most to " : "attended most by ", null]);
    if (kind === 1) parts.push([name, this.graph.backboneOf[best]], [" ", null]);
    parts.push([`(${row}, ${column}) with ${percent(values[best])}, ${times(values[best] / this.equal(vertex, best))} even`, null]);
    return parts;
  }

  write(parts) {
    this.sentence.replaceChildren(...parts.map(([text, backbone]) => (backbone === null ? text : h("b", { style: `color: var(--text-${backbone})`, title: text }, short(text, 28)))));
  }

  /** A message in the place of the sentence, read aloud at once. */
  say(message) {
    this.write([[message, null]]);
    this.live.textContent = message;
  }

  // ---- colour bars

  drawBars(map) {
    for (const [kind, bar] of this.bars.entries()) {
      const there = this.graph.kinds.includes(kind);
      bar.box.hidden = !there;
      if (there) this.drawBar(bar.canvas, kind, map, this.uniform(this.drawn.vertex, kind));
    }
  }

  drawBar(canvas, kind, map, uniform) {
    const width = 200;
    const context = sized(canvas, width, 50);
    context.clearRect(0, 0, width, 50);
    context.font = `12px ${this.colour("--font") || "sans-serif"}`;
    this.gradient(context, map, 8, 18, width - 16, 10);
    const { limits, signed } = this.drawn;
    const [low, high] = limits[kind];
    const text = (said, x, align, y = 48, ink = "--second") => {
      context.fillStyle = this.colour(ink);
      context.textAlign = align;
      context.fillText(said, x, y);
    };
    const log = this.state("logarithmic") && !signed;
    text(`${KINDS[kind]} weight${signed ? ", difference" : ""}`, 8, "left", 12);
    text(`${log ? "≤ " : ""}${number(low)}`, 8, "left");
    text(number(high), width - 8, "right");
    if (signed) text("0", width / 2, "center");
    else if (log) this.decades(low, high, width, text, kind);
    if (!signed) for (const [backbone, weight] of uniform) this.triangle(context, 8 + clamp(this.share(weight, kind), 0, 1) * (width - 16), 29, 5, this.markOf(backbone));
    const other = this.pointer;
    const value = other === null || this.kindOf(this.drawn.vertex, other) !== kind ? NaN : this.drawn.shown[other];
    if (!Number.isNaN(value) && !(value === MISSING && this.missing)) {
      this.triangle(context, 8 + clamp(this.share(value, kind), 0, 1) * (width - 16), 17, -6, this.colour("--ink"));
      text(number(value), width - 8, "right", 12, "--ink");
    } else if (!signed) {
      text("▴ even", width - 8, "right", 12);
    }
  }

  decades(low, high, width, text, kind) {
    if (!(low > 0 && high > low)) return;
    for (let exponent = Math.ceil(Math.log10(low)); 10 ** exponent < high; exponent++) {
      const at = this.share(10 ** exponent, kind) * (width - 16);
      if (at > 70 && at < width - 60) text(number(10 ** exponent), 8 + at, "center");
    }
  }

  gradient(context, map, left, top, width, height) {
    const fill = context.createLinearGradient(left, 0, left + width, 0);
    for (let stop = 0; stop <= 32; stop++) {
      const index = Math.round((stop / 32) * 255);
      fill.addColorStop(stop / 32, `rgb(${map[3 * index]}, ${map[3 * index + 1]}, ${map[3 * index + 2]})`);
    }
    context.fillStyle = fill;
    context.fillRect(left, top, width, height);
  }

  triangle(context, x, y, size, ink) {
    context.fillStyle = ink;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x - Math.abs(size) * 0.7, y + size);
    context.lineTo(x + Math.abs(size) * 0.7, y + size);
    context.fill();
  }

  // ---- edges, selection, pins

  /** The centre and the box of a vertex in the overlay, in CSS pixels. */
  placed(vertex) {
    const panel = this.panels[this.graph.backboneOf[vertex]];
    const [x0, y0, x1, y1] = this.graph.box(vertex);
    const [width, height] = panel.size;
    const { offsetLeft, offsetTop } = panel.stage;
    const box = [offsetLeft + x0 * width, offsetTop + y0 * height, (x1 - x0) * width, (y1 - y0) * height];
    return { x: box[0] + box[2] / 2, y: box[1] + box[3] / 2, box };
  }

  drawOverlay() {
    if (!this.data || !(this.drawn || this.state("view") === "graph")) return;
    const context = sized(this.overlay, this.gridsBox.clientWidth, this.gridsBox.clientHeight);
    context.clearRect(0, 0, this.gridsBox.clientWidth, this.gridsBox.clientHeight);
    if (this.peeking) return;
    if (this.state("view") === "graph") this.drawGraphEdges(context);
    else this.drawPatchEdges(context);
    for (const pin of this.state("pins")) this.drawBrackets(context, this.graph.vertex(pin));
    this.drawOutline(context, this.selected);
    this.drawValue();
  }

  drawPatchEdges(context) {
    const { vertex, values } = this.drawn;
    const outgoing = this.state("direction") === "outgoing";
    const found = strongest(values, this.state("edges"), (j) => this.kindOf(vertex, j) === 1);
    const total = outgoing ? 1 : sum(this.panels.map((panel) => (panel.number === this.graph.backboneOf[vertex] ? 0 : this.massOn(vertex, values, panel.number).mass)));
    const high = found.length ? values[found[0]] : 1;
    for (const other of [...found].reverse()) {
      const [from, to] = outgoing ? [vertex, other] : [other, vertex];
      this.drawEdge(context, from, to, values[other] / high, other === this.pointer);
    }
    this.drawCaption(found.length, sum(found.map((j) => values[j])) / (total || 1), outgoing);
  }

  drawCaption(count, share, outgoing) {
    if (!this.graph.kinds.includes(1)) this.caption.textContent = this.panels.length === 1 ? "One backbone: it has no cross edges." : "No cross layers: no edges between grids.";
    else if (count) this.caption.replaceChildren(h("b", {}, count === 1 ? "Strongest edge" : `${count} strongest edges`), ` keep${count === 1 ? "s" : ""} ${percent(share)} of the cross mass${outgoing ? "" : " received"}.`);
    else this.caption.textContent = "No edges drawn.";
    if (this.drawn.signed) this.caption.append(" They are the selected patch's own.");
    if (this.missing) this.caption.append(` ${this.keptSaid()}`);
  }

  keptSaid() {
    const [layer, head] = [this.state("layer"), this.state("head")];
    const kept = this.graph.kinds.map((kind) => `${percent(this.weights.kept(layer, head, this.selected, kind))} of the ${KINDS[kind]} mass`);
    return `This page keeps the ${this.weights.k} strongest weights of each row: ${kept.join(", ")}.`;
  }

  /** A curve that is full at its ends and pale between them, with a dot where it is attended to. */
  drawEdge(context, from, to, strength, marked = false, dashed = false) {
    const [a, b] = [this.placed(from), this.placed(to)];
    const ink = dashed ? this.colour("--ink") : this.markOf(this.graph.backboneOf[to]);
    const beside = Math.abs(b.x - a.x) > Math.abs(b.y - a.y);
    const [dx, dy] = beside ? [(b.x - a.x) / 2, 0] : [0, (b.y - a.y) / 2];
    const path = new Path2D();
    path.moveTo(a.x, a.y);
    path.bezierCurveTo(a.x + dx, a.y + dy, b.x - dx, b.y - dy, b.x, b.y);
    const width = marked ? 3.5 : 0.8 + 1.8 * strength;
    context.setLineDash(dashed ? [4, 3] : []);
    context.lineWidth = width + 1.6;
    context.strokeStyle = this.colour("--casing");
    context.stroke(path);
    context.lineWidth = width;
    context.strokeStyle = ink;
    context.globalAlpha = marked ? 1 : 0.55 + 0.45 * strength;
    context.stroke(path);
    context.globalAlpha = 1;
    context.setLineDash([]);
    context.beginPath();
    context.arc(b.x, b.y, marked ? 5 : 2.2 + 1.6 * strength, 0, 2 * Math.PI);
    context.fillStyle = ink;
    context.fill();
    context.lineWidth = 1.2;
    context.strokeStyle = this.colour("--paper");
    context.stroke();
  }

  drawOutline(context, vertex) {
    const [x, y, w, k] = this.placed(vertex).box;
    context.strokeStyle = "#000";
    context.lineWidth = 5;
    context.strokeRect(x, y, w, k);
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.strokeRect(x, y, w, k);
  }

  drawBrackets(context, vertex) {
    const [x, y, w, k] = this.placed(vertex).box;
    const arm = Math.min(w, k) * 0.3;
    const path = new Path2D();
    for (const [cx, cy, sx, sy] of [[x, y, 1, 1], [x + w, y, -1, 1], [x, y + k, 1, -1], [x + w, y + k, -1, -1]]) {
      path.moveTo(cx + sx * arm, cy);
      path.lineTo(cx, cy);
      path.lineTo(cx, cy + sy * arm);
    }
    for (const [ink, width] of [["#000", 5.5], ["#fff", 2.5]]) {
      context.strokeStyle = ink;
      context.lineWidth = width;
      context.stroke(path);
    }
  }

  weightSaid(value) {
    return this.unkept(value) || (this.missing && Number.isNaN(value)) ? "not kept" : number(value);
  }

  /** The weight under the pointer, beside its patch. */
  drawValue() {
    const other = this.pointer;
    this.label.hidden = true;
    if (other === null || !this.drawn || other === this.selected || this.state("view") === "graph") return;
    const value = this.drawn.shown[other];
    const { x, box } = this.placed(other);
    this.label.textContent = this.weightSaid(value);
    this.label.style.left = `${x}px`;
    this.label.style.top = `${box[1] + box[3] + 4}px`;
    this.label.hidden = false;
  }

  // ---- the graph view

  /** The strongest edges of the whole layer and head, of each kind. */
  allEdges() {
    const [layer, head, k] = [this.state("layer"), this.state("head"), this.state("edges")];
    const key = `${layer} ${head}`;
    const first = (edges) => edges.slice(0, k);
    if (this.edgesKey === key && this.edgesOf === this.data) return this.foundEdges.map(first);
    const found = [[], []];
    for (let i = 0; i < this.graph.n; i++) {
      if (!this.weights.ready(i)) return null;
      const row = this.weights.row(layer, head, i);
      for (const kind of this.graph.kinds)
        for (const j of strongest(row, MOST, (other) => other !== i && this.kindOf(i, other) === kind)) found[kind].push([i, j, row[j]]);
    }
    this.foundEdges = found.map((edges) => edges.sort((a, b) => b[2] - a[2]).slice(0, MOST));
    Object.assign(this, { edgesKey: key, edgesOf: this.data });
    return this.foundEdges.map(first);
  }

  drawGraphView() {
    const measures = this.measured();
    const paint = this.state("paint");
    this.drawn = null;
    const map = this.maps.sequential;
    const largest = measures ? measures.pagerank.reduce((most, rank) => Math.max(most, rank || 0), 0) : 1;
    for (const panel of this.panels) {
      panel.draw((j) => (measures && paint === "pagerank" && measures.pagerank[j] >= 0 ? Math.round((255 * measures.pagerank[j]) / largest) : ABSENT), map);
      if (measures && paint === "communities" && !measures.pagerank.some(Number.isNaN)) this.drawCommunities(panel, measures.community);
      else if (!measures) this.drawPale(panel);
      panel.note.textContent = "";
      panel.fit();
    }
    this.drawGraphSaid(measures);
    for (const bar of this.bars) bar.box.hidden = true;
    if (measures && paint === "pagerank") this.drawRankBar(largest);
  }

  drawRankBar(largest) {
    const [bar] = this.bars;
    bar.box.hidden = false;
    const context = sized(bar.canvas, 200, 50);
    context.clearRect(0, 0, 200, 50);
    context.font = `12px ${this.colour("--font") || "sans-serif"}`;
    this.gradient(context, this.maps.sequential, 8, 18, 184, 10);
    context.fillStyle = this.colour("--second");
    context.textAlign = "left";
    context.fillText("PageRank, × even", 8, 12);
    context.fillText("0", 8, 48);
    context.textAlign = "right";
    context.fillText(number(largest), 192, 48);
    context.fillText("▴ even", 192, 12);
    this.triangle(context, 8 + clamp(1 / largest, 0, 1) * 184, 29, 5, this.colour("--second"));
  }

  /** PageRank and communities of this layer and head, once they have come. */
  measured() {
    const [layer, head] = [this.state("layer"), this.state("head")];
    const { pagerank, community } = this.data.arrays;
    if (pagerank) {
      const at = layer * this.graph.n;
      return { pagerank: pagerank.subarray(at, at + this.graph.n), community: community.subarray(at, at + this.graph.n), head: null };
    }
    const key = `${this.data.number} ${layer} ${head}`;
    if (this.measures?.key === key) return this.measures.places ? this.measures : null;
    if (!this.port.live) return null;
    this.measures = { key };
    this.port.graph(this.data.number, layer, head).then(({ places, buffer }) => {
      if (this.measures?.key !== key || this.closed) return;
      this.measures = { key, places, head, ...arraysOf(places, buffer) };
      this.draw();
    }, (error) => {
      this.measures = null;
      this.fail(error);
    });
    return null;
  }

  drawPale(panel) {
    const context = panel.context();
    panel.drawPicture(context, 0.35);
    panel.drawLines(context);
  }

  drawCommunities(panel, community) {
    const { start, stop } = this.graph.slices[panel.number];
    const context = panel.context();
    panel.drawPicture(context, 0.35);
    for (let vertex = start; vertex < stop; vertex++) {
      const [x0, y0, x1, y1] = this.graph.box(vertex);
      const [width, height] = panel.size;
      const [x, y, w, k] = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height];
      context.fillStyle = TINTS[Math.min(community[vertex], TINTS.length - 1)];
      context.globalAlpha = 0.8;
      context.fillRect(x, y, w, k);
      context.globalAlpha = 1;
      if (Math.min(w, k) < 14) continue;
      context.fillStyle = "#1f1f1f";
      context.font = `600 ${Math.min(13, Math.round(k * 0.5))}px ${this.colour("--font") || "sans-serif"}`;
      context.fillText(String.fromCharCode(97 + (community[vertex] % 26)), x + 3, y + Math.min(13, k * 0.5) + 1);
    }
    panel.drawLines(context);
  }

  drawGraphSaid(measures) {
    const parts = [[`Strongest edges of layer ${this.state("layer")}, ${this.headName()}`, null]];
    if (measures?.pagerank.some(Number.isNaN)) return this.write([...parts, [" · NaN weights: nothing to measure", null]]);
    if (!measures) parts.push([this.port.live ? " · measuring the graph …" : "", null]);
    else if (this.state("paint") === "communities") {
      const count = new Set(measures.community).size;
      parts.push([` · ${count === 1 ? "one community" : `${count} communities`} (Louvain)`, null]);
    } else {
      const [best] = strongest(measures.pagerank, 1);
      const [name, row, column] = this.graph.place(best);
      parts.push([" · highest PageRank: ", null], [name, this.graph.backboneOf[best]], [` (${row}, ${column}), ${times(measures.pagerank[best])} even`, null]);
    }
    if (measures && measures.head === null && this.state("head") !== null) parts.push([" · measured on the mean of heads", null]);
    this.write(parts);
  }

  drawGraphEdges(context) {
    const found = this.allEdges();
    if (!found) {
      this.caption.textContent = "This graph is too large to draw here; use explorer.to_networkx(k=…).";
      return;
    }
    for (const kind of this.graph.kinds) {
      const high = found[kind][0]?.[2] ?? 1;
      for (const [i, j, weight] of [...found[kind]].reverse()) this.drawEdge(context, i, j, weight / high, false, kind === 0);
    }
    const said = this.graph.kinds.map((kind) => {
      const count = found[kind].length;
      return `${kind === 0 ? "╌╌ intra" : "── cross"}: ${count} strongest edges keep ${percent(sum(found[kind].map((edge) => edge[2])) / this.graph.n)}`;
    });
    this.caption.textContent = `${said.join(" · ")} of their mass; loops left out. Routing, not importance.`;
  }

  // ---- controls and navigator

  drawControls() {
    const pinned = this.state("pins").some((pin) => same(pin, this.state("selected")));
    const seen = JSON.stringify([this.graph.backboneOf[this.selected], pinned, ...CONTROLS.map((key) => this.state(key))]);
    if (this.controlled === seen) return;
    this.controlled = seen;
    const graph = this.state("view") === "graph";
    for (const group of this.tools.querySelectorAll(".choice"))
      for (const button of group.children) button.setAttribute("aria-pressed", String(String(this.state(group.dataset.key)) === button.dataset.value));
    for (const input of this.tools.querySelectorAll("input")) {
      const value = this.state(input.dataset.key);
      if (Number(input.value) !== value) input.value = value;
      input.nextElementSibling.textContent = input.dataset.key === "opacity" ? percent(value) : value;
    }
    this.patchTools.hidden = graph;
    this.graphTools.hidden = !graph;
    this.scaleTools.hidden = graph;
    const backbone = this.graph.backboneOf[this.selected];
    const pins = this.state("pins").map((pin) => this.graph.vertex(pin));
    const possible = pins.some((pin) => this.graph.backboneOf[pin] === backbone && pin !== this.selected);
    this.pinButton.setAttribute("aria-pressed", String(pinned));
    this.compareButton.setAttribute("aria-pressed", String(this.state("compare")));
    this.compareButton.disabled = !possible && !this.state("compare");
    this.compareButton.title = possible ? "Show the selected patch's weights minus those of the pin" : "Pin a patch of the same backbone first (P)";
    this.root.dataset.locked = this.state("locked");
    this.step.textContent = `layer ${this.state("layer")}, last ${this.facts.layers - 1}`;
    for (const matrix of this.matrices)
      for (const { layer, head, cell } of matrix.cells) {
        const here = layer === this.state("layer") && head === this.state("head");
        cell.setAttribute("aria-pressed", String(here));
        cell.tabIndex = here ? 0 : -1;
      }
  }

  drawMatrices() {
    const vertex = this.selected;
    const rowsAt = new Map();
    const row = (layer, head) => {
      const key = `${layer} ${head}`;
      if (!rowsAt.has(key)) rowsAt.set(key, this.weights.ready(vertex) ? this.rowFor(layer, head, vertex) : null);
      return rowsAt.get(key);
    };
    for (const matrix of this.matrices) this.drawMatrix(matrix, row);
  }

  rowFor(layer, head, vertex) {
    return this.state("direction") === "outgoing" ? this.weights.row(layer, head, vertex) : this.weights.column(layer, head, vertex);
  }

  drawMatrix(matrix, row) {
    const { kind, canvas, cells, pitch, cellSize, thumb } = matrix;
    const own = this.graph.backboneOf[this.selected];
    const width = 36 + pitch[0] * (this.facts.heads + 1);
    const height = 23 + pitch[1] * this.facts.layers;
    const context = sized(canvas, width, height);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    const shown = this.panels.map((panel) => panel.number).filter((backbone) => (backbone === own) === (kind === 0));
    const seen = [this.data, own];
    const described = seen.every((part, i) => part === matrix.described?.[i]);
    for (const { layer, head, cell } of cells) {
      const column = head === null ? 0 : head + 1;
      const [x, y] = [36 + column * pitch[0], 23 + layer * pitch[1]];
      const values = row(layer, head);
      const high = values ? Math.max(...shown.flatMap((backbone) => this.part(values, backbone))) : 0;
      for (const [i, backbone] of shown.entries()) this.drawThumb(context, values, backbone, high, x + i * (thumb[0] + 2), y, thumb);
      this.drawEntropy(context, matrix, layer, column, x, y + thumb[1] + 2, cellSize[0]);
      if (!described) cell.title = this.describeCell(kind, layer, head);
      if (!described) cell.setAttribute("aria-label", cell.title);
    }
    matrix.described = seen;
  }

  drawThumb(context, values, backbone, high, x, y, [width, height]) {
    const { rows, columns } = this.facts.backbones[backbone];
    const { start } = this.graph.slices[backbone];
    const small = (this.thumbs ??= new Map()).get(backbone) ?? h("canvas", { width: columns, height: rows });
    this.thumbs.set(backbone, small);
    const pixels = new ImageData(columns, rows);
    const map = this.maps.sequential;
    for (let i = 0; i < rows * columns; i++) {
      const value = values ? values[start + i] : NaN;
      const known = value >= 0;
      const index = known ? Math.round((255 * value) / (high || 1)) : 0;
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = map[3 * index + c];
      pixels.data[4 * i + 3] = known ? 255 : 40;
    }
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(small, x, y, width, height);
  }

  /** A tick for the mean entropy; where mass can be split, a bar of the split with notches where it would be even. */
  drawEntropy(context, { kind }, layer, column, x, y, width) {
    const heads = this.facts.heads + 1;
    const { entropy } = this.data.arrays;
    context.fillStyle = this.colour("--hairline");
    context.fillRect(x, y + 1.5, width, 1);
    const share = entropy[(layer * heads + this.slot(column)) * 2 + kind];
    context.fillStyle = this.colour("--ink");
    context.fillRect(x + clamp(share, 0, 1) * (width - 2), y, 2, 4);
    const splits = kind === 1 && this.panels.length > 2 ? this.split(layer, column) : [];
    let left = 0;
    let even = 0;
    for (const [i, [backbone, mass, uniform]] of splits.entries()) {
      context.fillStyle = this.markOf(backbone);
      context.fillRect(x + left * width, y + 5, mass * width - (i < splits.length - 1 ? 1 : 0), 3);
      left += mass;
      even += uniform;
      if (i < splits.length - 1) context.fillStyle = this.colour("--ink"), context.fillRect(x + even * width - 0.5, y + 4, 1, 5);
    }
  }

  /** Where a column of the navigator stands in the data: the mean comes last there. */
  slot(column) {
    return column === 0 ? this.facts.heads : column - 1;
  }

  /** How the cross mass of the selected patch's backbone splits: [backbone, mass, mass under equal logits]. */
  split(layer, column) {
    const { split } = this.data.arrays;
    const count = this.panels.length;
    const own = this.graph.backboneOf[this.selected];
    const at = ((layer * (this.facts.heads + 1) + this.slot(column)) * count + own) * count;
    return this.panels.filter((panel) => panel.number !== own).map((panel) => {
      const { start, stop } = this.graph.slices[panel.number];
      return [panel.number, split[at + panel.number], (stop - start) * (this.facts.equal.cross?.[own][panel.number] ?? 0)];
    });
  }

  describeCell(kind, layer, head) {
    const column = head === null ? 0 : head + 1;
    const share = this.data.arrays.entropy[(layer * (this.facts.heads + 1) + this.slot(column)) * 2 + kind];
    const said = `${KINDS[kind]}, layer ${layer}, ${this.headName(head)}: mean entropy ${percent(share)} of the largest possible`;
    if (kind === 0 || this.panels.length < 3) return said;
    const parts = this.split(layer, column).map(([backbone, mass, even]) => `${percent(mass)} to ${this.facts.backbones[backbone].name} (even ${percent(even)})`);
    return `${said}; from ${this.graph.place(this.selected)[0]} on average ${parts.join(", ")}`;
  }

  arrowsInMatrix(event, kind) {
    const { layers, heads } = this.facts;
    const [layer, head] = [this.state("layer"), this.state("head") ?? -1];
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!moves[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    const [down, right] = moves[event.key];
    const to = clamp(head + right, -1, heads - 1);
    this.set("layer", clamp(layer + down, 0, layers - 1));
    this.set("head", to < 0 ? null : to);
    const matrix = this.matrices.find((other) => other.kind === kind);
    matrix.cells.find(({ layer, head }) => layer === this.state("layer") && head === this.state("head")).cell.focus();
  }

  drawStates() {
    const seen = [this.data, this.state("layer"), this.colours];
    if (seen.every((part, i) => part === this.statesSeen?.[i])) return;
    this.statesSeen = seen;
    const { states } = this.data.arrays;
    const steps = states.length / (3 * this.graph.n);
    const aspect = this.data.aspect;
    const side = Math.floor(clamp(220 / steps - 4, 16, 44));
    const high = Math.round(side * aspect);
    const [left, top] = [0, 16];
    const width = steps * (side + 4);
    const context = sized(this.statesCanvas, width, top + this.panels.length * (high + 4));
    context.clearRect(0, 0, width, 999);
    context.imageSmoothingEnabled = false;
    context.font = `12px ${this.colour("--font") || "sans-serif"}`;
    this.stepPitch = side + 4;
    for (let step = 0; step < steps; step++) {
      const here = step === this.state("layer") + 1;
      context.fillStyle = this.colour(here ? "--ink" : "--second");
      context.textAlign = "center";
      context.fillText(step === 0 ? "in" : String(step - 1), left + step * (side + 4) + side / 2, 11);
      for (const { number: backbone, backbone: { rows, columns } } of this.panels) {
        const small = h("canvas", { width: columns, height: rows });
        const pixels = new ImageData(columns, rows);
        const from = 3 * (step * this.graph.n + this.graph.slices[backbone].start);
        for (let i = 0; i < rows * columns; i++) pixels.data.set([states[from + 3 * i], states[from + 3 * i + 1], states[from + 3 * i + 2], 255], 4 * i);
        small.getContext("2d").putImageData(pixels, 0, 0);
        const [x, y] = [left + step * (side + 4), top + backbone * (high + 4)];
        context.drawImage(small, x, y, side, high);
        context.fillStyle = this.markOf(backbone);
        context.fillRect(x, y + high, side, 2);
      }
      if (here) {
        context.strokeStyle = this.colour("--accent");
        context.lineWidth = 2;
        context.strokeRect(left + step * (side + 4) - 1, top - 1, side + 2, this.panels.length * (high + 4));
      }
    }
    this.statesCanvas.setAttribute("aria-label", `Vertex states before the first step and after each of ${steps - 1}, as colours of their first three principal components, the same for all backbones`);
  }

  clickStates(event) {
    const step = Math.floor(event.offsetX / this.stepPitch);
    if (step > 0) this.set("layer", Math.min(step - 1, this.facts.layers - 1));
  }

  // ---- side panel

  drawMass() {
    const spread = this.panels.length < 3 && this.state("direction") === "outgoing";
    this.massTitle.firstChild.textContent = spread ? "Attention spread" : "Attention mass";
    const chosen = [[this.state("selected"), "selected"], ...this.state("pins").map((pin) => [pin, "pin"])];
    const rows = chosen.flatMap(([patch, mark]) => this.massRows(this.graph.vertex(patch), patch, mark));
    const held = this.mass.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    this.mass.replaceChildren(...rows);
    if (held) ([...this.mass.querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === held) ?? this.panels[0].stage).focus();
  }

  massRows(vertex, patch, mark) {
    if (!this.weights.ready(vertex)) return [];
    const values = this.values(vertex);
    const outgoing = this.state("direction") === "outgoing";
    const own = this.graph.backboneOf[vertex];
    const [name, row, column] = patch;
    const unpin = mark === "pin" ? h("button", { type: "button", class: "unpin", "aria-label": `Unpin ${name} (${row}, ${column})`, onclick: () => this.set("pins", this.state("pins").filter((pin) => !same(pin, patch))) }, "×") : null;
    const head = h("div", { class: `of ${mark}` }, h("i", { class: mark, "aria-hidden": "true" }, mark === "pin" ? "⌜⌟" : ""), h("b", { style: `color: var(--text-${own})`, title: name }, short(name, 18)), ` (${row}, ${column})`, unpin);
    const lines = this.panels
      .filter((panel) => this.graph.kinds.includes(panel.number === own ? 0 : 1))
      .map((panel) => {
        const { mass, even } = this.massOn(vertex, values, panel.number);
        const part = this.part(values, panel.number);
        const kind = panel.number === own ? "intra" : "cross";
        const whole = outgoing && this.panels.length < 3; // each grid has a softmax of its own: only the spread varies
        const spread = effective(part);
        const [share, notch] = whole ? [spread / part.length, 1] : outgoing ? [mass, even] : [mass / even / 4, 0.25];
        const said = whole ? percent(spread / part.length) : outgoing ? percent(mass) : times(mass / even);
        const title = whole
          ? `${kind}: spread as if over ${number(spread)} of ${part.length} patches alike`
          : outgoing
          ? `${kind} mass ${percent(mass)} on ${panel.backbone.name}; ${percent(even)} if all logits were equal`
          : `${kind}: receives ${times(mass / even)} an even share from ${panel.backbone.name}`;
        return h(
          "div",
          { class: "line", title },
          h("span", { class: "what", style: `color: var(--text-${panel.number})` }, short(panel.backbone.name, 15)),
          h("span", { class: "track" }, h("span", { class: "fill", style: `width: ${100 * clamp(share, 0, 1)}%; background: var(--mark-${panel.number})` }), h("span", { class: "notch", style: `left: ${100 * clamp(notch, 0, 1)}%` })),
          h("span", { class: "much" }, said),
          h("span", { class: "note spread" }, `${kind}, spread over ${number(Number(spread.toPrecision(2)))} of ${part.length} patches`),
        );
      });
    return [head, ...lines];
  }

  /** The edge between the selected patch and the one under the pointer, in all layers and heads. */
  drawDots() {
    const other = this.pointer;
    const vertex = this.selected;
    const width = 248;
    const context = sized(this.dots, width, 74);
    context.clearRect(0, 0, width, 74);
    const usable = other !== null && other !== vertex && this.state("view") === "patch" && this.weights.ready(vertex);
    this.dotsNote.replaceChildren(usable ? "" : this.state("locked") ? "Point at another patch." : "Click a patch to lock it, then point at another.");
    if (!usable) return;
    const [name, row, column] = this.graph.place(other);
    this.dotsNote.replaceChildren(this.state("direction") === "outgoing" ? "to " : "from ", h("b", { style: `color: var(--text-${this.graph.backboneOf[other]})` }, short(name)), ` (${row}, ${column}) `, h("b", {}, this.weightSaid(this.drawn?.values[other] ?? NaN)));
    const { layers, heads } = this.facts;
    const values = [];
    for (let layer = 0; layer < layers; layer++) for (let head = 0; head < heads; head++) values.push(this.rowFor(layer, head, vertex)[other]);
    const equal = this.equal(vertex, other);
    const high = Math.max(...values, equal);
    const y = (value) => 50 - (44 * value) / high;
    context.fillStyle = this.colour("--second");
    context.font = `12px ${this.colour("--font") || "sans-serif"}`;
    context.fillRect(0, y(equal), width, 1);
    context.fillRect(0, 50.5, width, 0.5);
    for (const [i, value] of values.entries()) {
      if (this.unkept(value)) continue;
      const [layer, head] = [Math.floor(i / heads), i % heads];
      const here = layer === this.state("layer") && (head === this.state("head") || this.state("head") === null);
      const x = (width / layers) * (layer + (head + 1) / (heads + 1));
      context.fillStyle = here ? this.markOf(this.graph.backboneOf[other]) : this.colour("--second");
      context.beginPath();
      context.arc(x, y(value), here ? 4 : 2.5, 0, 2 * Math.PI);
      context.fill();
      if (head === 0) {
        context.textAlign = "center";
        context.fillStyle = this.colour(layer === this.state("layer") ? "--ink" : "--second");
        context.fillText(layers > 4 ? String(layer) : `layer ${layer}`, (width / layers) * (layer + 0.5), 68);
      }
    }
  }

  // ---- pointer and keys

  point(panel, event) {
    const vertex = panel.vertexAt(event);
    if (vertex === this.pointer) return;
    this.pointer = vertex;
    if (vertex === null || !this.data) return;
    if (!this.state("locked") && event.pointerType !== "touch") this.select(vertex);
    else this.pointed();
  }

  /** Redraws what depends on the patch under the pointer alone. */
  pointed() {
    if (!this.data || !this.drawn) return;
    this.drawOverlay();
    this.drawBars(this.drawn.signed ? this.maps.diverging : this.maps.sequential);
    this.soon();
  }

  press(panel, event) {
    const vertex = panel.vertexAt(event);
    if (vertex === null || !this.data || event.button) return;
    this.pointer = vertex;
    const again = this.state("locked") && vertex === this.selected;
    this.set("locked", !again && event.pointerType !== "touch");
    this.select(vertex);
  }

  leave() {
    this.pointer = null;
    this.pointed();
  }

  enter(panel) {
    if (!this.data || panel.stage.matches(":active") || this.graph.backboneOf[this.selected] === panel.number) return;
    if (panel.stage.matches(":focus-visible")) this.move(panel, 0, 0);
  }

  select(vertex) {
    this.set("selected", this.graph.place(vertex));
  }

  arrows(panel, event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!moves[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(panel, ...moves[event.key]);
  }

  /** Moves the selection on a grid; coming from another grid, it starts where the two overlap. */
  move(panel, down, right) {
    let [name, row, column] = this.state("selected");
    const { rows, columns, field } = panel.backbone;
    if (name !== panel.backbone.name) {
      const [x0, y0, x1, y1] = this.graph.box(this.selected);
      row = Math.floor((((y0 + y1) / 2 - field[1]) / (field[3] - field[1])) * rows);
      column = Math.floor((((x0 + x1) / 2 - field[0]) / (field[2] - field[0])) * columns);
    }
    this.set("selected", [panel.backbone.name, clamp(row + down, 0, rows - 1), clamp(column + right, 0, columns - 1)]);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input");
    const acts = this.acts();
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.key.startsWith("Arrow") && !typing && !event.defaultPrevented) {
      event.preventDefault();
      this.arrows(this.panels[this.graph.backboneOf[this.selected]], event);
      return;
    }
    if (!acts[name] || (name === " " && event.target.matches("button"))) return;
    if (name === "Enter" && !event.target.matches(".stage")) return;
    event.preventDefault();
    event.stopPropagation();
    if (this.data) acts[name](event);
  }

  acts() {
    const { layers, heads } = this.facts;
    const [layer, head] = [this.state("layer"), this.state("head")];
    const cycle = (key) => {
      const values = CHOICES[key].map(([value]) => value);
      this.set(key, values[(values.indexOf(this.state(key)) + 1) % values.length]);
    };
    const toHead = (to) => this.set("head", to < 0 || to >= heads ? null : to);
    const edges = (by) => this.set("edges", clamp(this.state("edges") + by, 0, Math.min(MOST, this.graph.n)));
    return {
      "[": () => this.set("layer", clamp(layer - 1, 0, layers - 1)),
      "]": () => this.set("layer", clamp(layer + 1, 0, layers - 1)),
      ",": () => toHead(head === null ? heads - 1 : head - 1),
      ".": () => toHead(head === null ? 0 : head + 1),
      m: () => this.set("head", null),
      d: () => cycle("direction"),
      p: () => this.togglePin(),
      c: () => this.set("compare", !this.state("compare")),
      "-": () => edges(-1),
      "−": () => edges(-1),
      "+": () => edges(1),
      "=": () => edges(1),
      s: () => cycle("scale"),
      l: () => cycle("logarithmic"),
      o: () => this.peek(true),
      g: () => cycle("view"),
      " ": () => this.play(!this.playing),
      b: () => this.turn(-1),
      n: () => this.turn(1),
      Enter: () => this.set("locked", !this.state("locked")),
      Escape: () => this.set("locked", false),
    };
  }

  togglePin() {
    const pins = this.state("pins");
    const selected = this.state("selected");
    const others = pins.filter((pin) => !same(pin, selected));
    this.set("pins", others.length < pins.length ? others : [...pins.slice(-3), selected]);
  }

  /** The picture without the heatmap, as long as the key is held. */
  peek(on) {
    if (Boolean(this.peeking) === on) return;
    this.peeking = on;
    this.draw();
  }

  play(on) {
    clearInterval(this.playing);
    this.playing = on ? setInterval(() => this.set("layer", (this.state("layer") + 1) % this.facts.layers), PLAY) : null;
    this.playButton.textContent = on ? "❚❚" : "▶";
    this.playButton.setAttribute("aria-label", on ? "Pause" : "Play layers");
  }
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const explorer = new Explorer(livePort(model), root);
    hideTwin(model.get("_twin"));
    return () => explorer.close();
  },
};

/** The still picture that stands in where there is no kernel is not needed beside the living one. */
function hideTwin(name) {
  for (const twin of document.querySelectorAll(`[data-grafeat-twin="${name}"]`)) (twin.closest(".jp-OutputArea-child") ?? twin).style.display = "none";
}

/** Opens every explorer of an exported page. */
export function openPage() {
  for (const root of document.querySelectorAll("[data-grafeat-page]")) {
    const port = pagePort(root);
    const place = document.createElement("div");
    root.append(place);
    root.explorer = new Explorer(port, place);
  }
}
