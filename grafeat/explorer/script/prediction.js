// What the model says of the picture.

import { h } from "./elements.js";
import { softmax, sum } from "./numbers.js";
import { Part } from "./part.js";
import { short } from "./words.js";

export class Prediction extends Part {
  build() {
    this.truth = h("span", { class: "note" });
    this.bars = h("div", { class: "prediction" });
    return h("section", {}, h("h3", {}, "Prediction", this.truth), this.bars);
  }

  /** Probabilities; where something is knocked out, what becomes of them. */
  draw() {
    const { probabilities } = this.data.arrays;
    const { label } = this.data;
    const { after } = this.explorer.knockouts;
    const then = after ? softmax(after) : null;
    const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
    const top = order.slice(0, 4);
    const now = then?.indexOf(Math.max(...then));
    for (const c of [now, label]) if (c !== null && c >= 0 && !top.includes(c)) top[c === label ? top.length - 1 : top.length - 2] = c;
    const rows = top.map((c) => this.row(c, probabilities[c], then?.[c], c === order[0]));
    const { length } = this.facts.classes;
    const rest = (values) => (values ? Math.max(1 - sum(top.map((c) => values[c])), 0) : undefined);
    if (length > top.length) rows.push(this.row(null, rest(probabilities), rest(then), false, `other ${length - top.length}`));
    this.bars.dataset.after = Boolean(then);
    this.bars.replaceChildren(...rows);
    this.drawTruth(label, order[0]);
  }

  row(c, before, after, predicted, name = this.facts.classes[c]) {
    const mark = c !== null && c === this.data.label ? h("span", { class: "tick", title: "true label" }, "✓") : null;
    const notch = after === undefined ? null : h("span", { class: "notch", style: `left: ${100 * after}%`, title: "without what is knocked out" });
    return h(
      "div",
      { class: `class${predicted ? " predicted" : ""}${c === null ? " rest" : ""}` },
      h("span", { class: "what", title: name }, short(name, after === undefined ? 14 : 10), mark),
      h("span", { class: "track" }, h("span", { class: "fill", style: `width: ${100 * before}%` }), notch),
      h("span", { class: "much" }, after === undefined ? before.toFixed(2) : `${before.toFixed(2)} → ${after.toFixed(2)}`),
    );
  }

  drawTruth(label, said) {
    const { classes } = this.facts;
    const right = label === said;
    this.truth.textContent = label === null ? "" : right ? `true label: ${classes[label]} ✓` : `wrong: true label is ${classes[label]}`;
    this.truth.classList.toggle("wrong", label !== null && !right);
  }
}
