// Attention weights out of the forms in which they are sent.

import { arraysOf } from "./bytes.js";
import { sum } from "./numbers.js";

export const MISSING = -1; // a weight that was not kept

const NOWHERE = 65535;

const KEPT = 64; // vertices that were asked for and are kept

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

export function weightsOf(data, graph, facts, port) {
  const arrays = data.arrays;
  if (data.form === "rows") return new RowWeights(graph, facts.heads, arrays);
  if (data.form === "states") return new StateWeights(graph, facts.heads, arrays, data.width);
  if (data.form === "strongest") return new StrongestWeights(graph, facts.heads, arrays, data.k);
  return new RemoteWeights(graph, facts.heads, arrays, (vertex) => port.vertex(data.number, vertex));
}
