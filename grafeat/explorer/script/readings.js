// What the weights say of the selected patch.

import { KINDS } from "./graph.js";
import { sum } from "./numbers.js";
import { Part } from "./part.js";
import { MISSING } from "./weights.js";
import { number } from "./words.js";

export class Readings extends Part {
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

  /** The uniform weights of one kind: [backbone, weight] for each that takes part. */
  uniform(vertex, kind) {
    const found = [];
    for (const [backbone, { start }] of this.graph.slices.entries())
      if (this.kindOf(vertex, start) === kind && this.graph.kinds.includes(kind)) found.push([backbone, this.equal(vertex, start)]);
    return found;
  }

  part(values, backbone) {
    const { start, stop } = this.graph.slices[backbone];
    return Array.from(values.subarray(start, stop), (value) => (value === MISSING && this.missing ? 0 : value));
  }

  /** Mass of a row or column on a backbone, beside what equal logits would give. */
  massOn(vertex, values, backbone) {
    const { start, stop } = this.graph.slices[backbone];
    const outgoing = this.state("direction") === "outgoing";
    const lone = outgoing && !this.facts.joint && (this.panels.length < 3 || this.graph.backboneOf[vertex] === backbone); // its softmax's only grid
    const exact = this.weights.massOf(this.state("layer"), this.state("head"), vertex, backbone, outgoing);
    const summed = sum(this.part(values, backbone));
    const mass = Number.isNaN(summed) ? NaN : (exact ?? (lone ? 1 : summed));
    return { mass, even: (stop - start) * this.equal(vertex, start) };
  }

  headName(head = this.state("head")) {
    return head === null ? `mean of ${this.facts.heads} heads` : `head ${head}`;
  }

  said(value) {
    return this.unkept(value) || (this.missing && Number.isNaN(value)) ? "not kept" : number(value);
  }

  row(layer, head, vertex) {
    return this.state("direction") === "outgoing" ? this.weights.row(layer, head, vertex) : this.weights.column(layer, head, vertex);
  }
}
