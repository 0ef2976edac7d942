// One edge in all layers and heads.

import { h, sized } from "./elements.js";
import { Part } from "./part.js";
import { short } from "./words.js";

export class Dots extends Part {
  build() {
    this.note = h("p", { class: "note" });
    this.canvas = h("canvas", { "aria-hidden": "true" });
    return h("section", {}, h("h3", {}, "Edge under the pointer", h("span", { class: "note" }, "each dot a head")), this.note, this.canvas);
  }

  /** The edge between the selected patch and the one under the pointer, in all layers and heads. */
  draw() {
    const other = this.explorer.pointer;
    const vertex = this.selected;
    const width = 248;
    const context = sized(this.canvas, width, 74);
    context.clearRect(0, 0, width, 74);
    const usable = other !== null && other !== vertex && this.state("view") === "patch" && this.weights.ready(vertex);
    this.note.replaceChildren(usable ? "" : this.state("locked") ? "Point at another patch." : "Click a patch to lock it, then point at another.");
    if (!usable) return;
    const [name, row, column] = this.graph.place(other);
    this.note.replaceChildren(this.state("direction") === "outgoing" ? "to " : "from ", h("b", { style: `color: var(--text-${this.graph.backboneOf[other]})` }, short(name)), ` (${row}, ${column}) `, h("b", {}, this.readings.said(this.explorer.drawn?.values[other] ?? NaN)));
    const { layers, heads } = this.facts;
    const values = [];
    for (let layer = 0; layer < layers; layer++) for (let head = 0; head < heads; head++) values.push(this.readings.row(layer, head, vertex)[other]);
    const equal = this.readings.equal(vertex, other);
    const high = Math.max(...values, equal);
    const y = (value) => 50 - (44 * value) / high;
    context.fillStyle = this.colour("--second");
    context.font = this.font;
    context.fillRect(0, y(equal), width, 1);
    context.fillRect(0, 50.5, width, 0.5);
    for (const [i, value] of values.entries()) {
      if (this.readings.unkept(value)) continue;
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
}
