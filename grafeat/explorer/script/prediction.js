// What the model says of the picture.

import { h } from "./elements.js";
import { sum } from "./numbers.js";
import { Part } from "./part.js";
import { short } from "./words.js";

export class Prediction extends Part {
  build() {
    this.truth = h("span", { class: "note" });
    this.bars = h("div", { class: "prediction" });
    return h("section", {}, h("h3", {}, "Prediction", this.truth), this.bars);
  }

  draw() {
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
    this.bars.replaceChildren(...bars);
    const right = label === order[0];
    this.truth.textContent = label === null ? "" : right ? `true label: ${classes[label]} ✓` : `wrong: true label is ${classes[label]}`;
    this.truth.classList.toggle("wrong", label !== null && !right);
  }
}
