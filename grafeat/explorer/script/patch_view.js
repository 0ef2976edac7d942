// The view of one patch: its weights on every grid.

import { KINDS } from "./graph.js";
import { clamp, strongest } from "./numbers.js";
import { ABSENT, UNKNOWN } from "./panel.js";
import { Part } from "./part.js";
import { number, percent, times } from "./words.js";

export class PatchView extends Part {
  draw(vertex) {
    const values = this.readings.values(vertex);
    const pin = this.readings.compared;
    let shown = values;
    if (pin !== null && this.weights.ready(pin)) {
      const other = this.readings.values(pin);
      shown = values.map((value, j) => (this.readings.unkept(value) || this.readings.unkept(other[j]) ? NaN : value - other[j]));
    }
    const signed = shown !== values;
    this.explorer.drawn = { vertex, values, shown, signed, limits: this.limitsOf(vertex, shown, signed) };
    const map = signed ? this.maps.diverging : this.maps.sequential;
    for (const panel of this.panels) {
      panel.draw((j) => this.index(shown[j], this.readings.kindOf(vertex, j)), map);
      this.drawHeader(panel, vertex, values);
      panel.fit();
    }
    if (signed) this.sayDifference(vertex, pin, shown);
    else this.say(vertex, values);
    this.explorer.legend.draw();
    if (this.explorer.failure) this.explorer.say(this.explorer.failure);
  }

  /** The ends of the colours, intra and cross. */
  limitsOf(vertex, values, signed) {
    const scale = this.state("scale");
    const { top } = this.data.arrays;
    const { layers, heads } = this.facts;
    return [0, 1].map((kind) => {
      let high = 0;
      if (signed || scale === "row") {
        for (let j = 0; j < values.length; j++)
          if (this.readings.kindOf(vertex, j) === kind && !Number.isNaN(values[j])) high = Math.max(high, signed ? Math.abs(values[j]) : values[j]);
      } else if (scale === "head") {
        high = top[(this.state("layer") * (heads + 1) + (this.state("head") ?? heads)) * 2 + kind];
      } else {
        for (let layer = 0; layer < layers; layer++)
          for (let head = 0; head < heads; head++) high = Math.max(high, top[(layer * (heads + 1) + head) * 2 + kind]);
      }
      const log = this.state("logarithmic") && !signed;
      const least = Math.min(...this.readings.uniform(vertex, kind).map(([, weight]) => weight)) / 10;
      const low = signed ? -high : log ? Math.min(least, high > 0 ? high / 10 : least) : 0;
      if (high > low) return [low, high];
      return signed ? [-1, 1] : log ? [least, 10 * least] : [0, 1]; // NaN, or nothing at all
    });
  }

  /** Where a value lies between the ends of its kind's colours, in [0, 1]. */
  share(value, kind) {
    const { limits, signed } = this.explorer.drawn;
    const [low, high] = limits[kind];
    if (!signed && this.state("logarithmic")) return Math.log(value / low) / Math.log(high / low);
    return (value - low) / (high - low);
  }

  index(value, kind) {
    if (!this.graph.kinds.includes(kind) || this.readings.unkept(value)) return ABSENT;
    if (Number.isNaN(value)) return this.readings.missing && this.explorer.drawn.signed ? ABSENT : UNKNOWN;
    return Math.round(255 * clamp(this.share(value, kind), 0, 1));
  }

  drawHeader(panel, vertex, values) {
    const kind = this.graph.backboneOf[vertex] === panel.number ? 0 : 1;
    if (!this.graph.kinds.includes(kind)) {
      panel.note.textContent = `no ${KINDS[kind]} layers`;
      return;
    }
    const { mass, even } = this.readings.massOn(vertex, values, panel.number);
    const lone = !this.facts.joint && (kind === 0 || this.panels.length === 2);
    if (this.state("direction") === "incoming") panel.note.textContent = `${KINDS[kind]} ${times(mass / even)} even`;
    else panel.note.textContent = lone ? KINDS[kind] : `${KINDS[kind]} ${percent(mass)}${panel.size[0] < 260 ? "" : `, even ${percent(even)}`}`;
  }

  /** Says in words what is selected. */
  say(vertex, values) {
    const [name, row, column] = this.graph.place(vertex);
    const parts = [[name, this.graph.backboneOf[vertex]], [` patch (${row}, ${column}) · layer ${this.state("layer")}, ${this.readings.headName()}`, null]];
    if (values.some((value) => Number.isNaN(value))) {
      this.explorer.write([...parts, [" · has NaN weights: nothing can be drawn where patches are hatched", null]]);
      return;
    }
    for (const kind of this.graph.kinds) parts.push(...this.strongestSaid(vertex, values, kind));
    this.explorer.write(parts);
  }

  /** Says where the selected patch's weights exceed the pin's most, and where they fall short most. */
  sayDifference(vertex, pin, difference) {
    const [[name, row, column], [, pinRow, pinColumn]] = [vertex, pin].map((patch) => this.graph.place(patch));
    const parts = [[name, this.graph.backboneOf[vertex]], [` patch (${row}, ${column}) minus patch (${pinRow}, ${pinColumn}) · layer ${this.state("layer")}, ${this.readings.headName()}`, null]];
    const points = (value) => `${number(100 * Math.abs(value))} points`;
    for (const [sign, words] of [[1, "most more"], [-1, "most less"]]) {
      const [most] = strongest(difference.map((value) => sign * value), 1);
      if (most === undefined) continue;
      const [where, down, across] = this.graph.place(most);
      parts.push([` · ${words}: `, null], [where, this.graph.backboneOf[most]], [` (${down}, ${across}), ${points(difference[most])}`, null]);
    }
    this.explorer.write(parts);
  }

  strongestSaid(vertex, values, kind) {
    const [best] = strongest(values, 1, (j) => this.readings.kindOf(vertex, j) === kind);
    if (best === undefined) return [];
    const [name, row, column] = this.graph.place(best);
    const outgoing = this.state("direction") === "outgoing";
    const parts = [[` · ${KINDS[kind]}: `, null]];
    if (kind === 1 && this.panels.length === 3 && outgoing)
      for (const [backbone] of this.facts.backbones.entries()) {
        if (backbone === this.graph.backboneOf[vertex]) continue;
        const { mass } = this.readings.massOn(vertex, values, backbone);
        parts.push([`${percent(mass)} to `, null], [this.facts.backbones[backbone].name, backbone], [", ", null]);
      }
    parts.push([outgoing ? "most to " : "attended most by ", null]);
    if (kind === 1) parts.push([name, this.graph.backboneOf[best]], [" ", null]);
    parts.push([`(${row}, ${column}) with ${percent(values[best])}, ${times(values[best] / this.readings.equal(vertex, best))} even`, null]);
    return parts;
  }
}
