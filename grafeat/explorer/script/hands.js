// Pointer and keys.

import { CHOICES, MOST } from "./choices.js";
import { clamp, same } from "./numbers.js";
import { Part } from "./part.js";

export class Hands extends Part {
  point(panel, event) {
    const vertex = panel.vertexAt(event);
    if (vertex === this.explorer.pointer) return;
    this.explorer.pointer = vertex;
    if (vertex === null || !this.data) return;
    if (!this.state("locked") && event.pointerType !== "touch") this.select(vertex);
    else this.explorer.pointed();
  }

  press(panel, event) {
    const vertex = panel.vertexAt(event);
    if (vertex === null || !this.data || event.button) return;
    this.explorer.pointer = vertex;
    const again = this.state("locked") && vertex === this.selected;
    this.set("locked", !again && event.pointerType !== "touch");
    this.select(vertex);
  }

  leave() {
    this.explorer.pointer = null;
    this.explorer.pointed();
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
    if (event.target.matches("select")) return; // a menu has keys of its own
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
      " ": () => this.explorer.states.play(!this.explorer.states.playing),
      b: () => this.explorer.strip.turn(-1),
      n: () => this.explorer.strip.turn(1),
      Enter: () => this.set("locked", !this.state("locked")),
      k: () => this.explorer.knockouts.toggle(),
      r: () => this.explorer.controls.turnRelevance(),
      Escape: () => (this.state("locked") ? this.set("locked", false) : this.set("knocked", [])),
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
    this.explorer.draw();
  }
}
