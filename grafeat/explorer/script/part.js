// What all parts of the explorer share.

/** A part of the explorer: it knows the whole, and reads state and data through it. */
export class Part {
  constructor(explorer) {
    this.explorer = explorer;
  }

  state(key) {
    return this.explorer.state(key);
  }

  set(key, value) {
    this.explorer.set(key, value);
  }

  colour(variable) {
    return this.explorer.colour(variable);
  }

  markOf(backbone) {
    return this.explorer.colour(`--mark-${backbone}`);
  }

  get font() {
    return `12px ${this.colour("--font") || "sans-serif"}`;
  }

  get facts() {
    return this.explorer.facts;
  }

  get port() {
    return this.explorer.port;
  }

  get graph() {
    return this.explorer.graph;
  }

  get maps() {
    return this.explorer.maps;
  }

  get panels() {
    return this.explorer.panels;
  }

  get readings() {
    return this.explorer.readings;
  }

  /** The picture's data; null until it is here. */
  get data() {
    return this.explorer.data;
  }

  get weights() {
    return this.explorer.weights;
  }

  /** The selected vertex. */
  get selected() {
    return this.explorer.selected;
  }
}
