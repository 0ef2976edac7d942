// The bar of buttons and sliders.

import { CHOICES, CONTROLS, MOST } from "./choices.js";
import { h } from "./elements.js";
import { same } from "./numbers.js";
import { Part } from "./part.js";
import { percent } from "./words.js";

export class Controls extends Part {
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

  build() {
    this.compareButton = h("button", { type: "button", class: "toggle", onclick: () => this.set("compare", !this.state("compare")) }, "− pin");
    this.pinButton = h("button", { type: "button", class: "toggle", title: "Keep the selected patch for comparison (P)", onclick: () => this.explorer.hands.togglePin() }, "pin");
    const most = Math.min(MOST, this.graph.n);
    this.patchTools = h("div", { class: "group" }, this.choice("direction", "Direction"), this.pinButton, this.compareButton);
    this.graphTools = h("div", { class: "group" }, this.choice("paint", "Paint patches by"));
    this.scaleTools = h("div", { class: "group" }, this.choice("scale", "Scale colours to"), this.choice("logarithmic", "Linear or logarithmic"));
    this.element = h(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "What is shown, and how" },
      this.choice("view", "View"), this.patchTools, this.graphTools,
      this.slider("edges", "Edges", 0, most, 1), this.scaleTools, this.slider("opacity", "Picture", 0, 1, 0.05),
    );
    return this.element;
  }

  draw() {
    const pinned = this.state("pins").some((pin) => same(pin, this.state("selected")));
    const seen = JSON.stringify([this.graph.backboneOf[this.selected], pinned, ...CONTROLS.map((key) => this.state(key))]);
    if (this.seen === seen) return;
    this.seen = seen;
    const graph = this.state("view") === "graph";
    for (const group of this.element.querySelectorAll(".choice"))
      for (const button of group.children) button.setAttribute("aria-pressed", String(String(this.state(group.dataset.key)) === button.dataset.value));
    for (const input of this.element.querySelectorAll("input")) {
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
    this.explorer.root.dataset.locked = this.state("locked");
    this.explorer.states.step.textContent = `layer ${this.state("layer")}, last ${this.facts.layers - 1}`;
    this.explorer.navigator.mark();
  }
}
