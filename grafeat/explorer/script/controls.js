// The bar of buttons and sliders.

import { CHOICES, CONTROLS, MOST } from "./choices.js";
import { h } from "./elements.js";
import { same } from "./numbers.js";
import { Part } from "./part.js";
import { named } from "./relevance_view.js";
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
    this.buildRelevance();
    this.patchTools = h("div", { class: "group" }, this.choice("direction", "Direction"), this.pinButton, this.compareButton);
    this.graphTools = h("div", { class: "group" }, this.choice("paint", "Paint patches by"));
    this.scaleTools = h("div", { class: "group" }, this.choice("scale", "Scale colours to"), this.choice("logarithmic", "Linear or logarithmic"));
    this.element = h(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "What is shown, and how" },
      this.choice("view", "View"), this.shownTools, this.patchTools, this.graphTools,
      this.slider("edges", "Edges", 0, most, 1), this.scaleTools, this.slider("opacity", "Picture", 0, 1, 0.05),
    );
    return this.element;
  }

  /** Menus of what the grids show: attention, or relevance by a method for a class. */
  buildRelevance() {
    const option = (value, text) => h("option", { value: JSON.stringify(value) }, text);
    const { methods, classes } = this.facts;
    const listed = methods.map((method) => option(method, named(method)));
    const menu = (key, label, ...options) => h("select", { "aria-label": label, "data-key": key, onchange: (event) => this.set(key, JSON.parse(event.target.value)) }, ...options);
    this.methodMenu = menu("relevance", "What the grids show", option(null, "attention"), ...listed);
    this.targetMenu = menu("target", "Class that relevance explains", option(null, "the predicted class"), ...classes.map((name, c) => option(c, `'${name}'`)));
    const select = (menu) => h("span", { class: "select" }, menu);
    this.target = h("label", { class: "slider" }, h("span", {}, "for"), select(this.targetMenu));
    this.shownTools = h("div", { class: "group" }, select(this.methodMenu), this.target);
    this.lastMethod = methods.includes("integrated_gradients") ? "integrated_gradients" : methods[0];
  }

  /** Between attention and the relevance that was shown last. */
  turnRelevance() {
    this.set("relevance", this.state("relevance") ? null : this.lastMethod);
  }

  drawRelevance() {
    const method = this.state("relevance");
    if (method) this.lastMethod = method;
    this.methodMenu.value = JSON.stringify(method);
    this.targetMenu.value = JSON.stringify(this.state("target"));
    this.target.hidden = !method;
    for (const control of [...this.patchTools.querySelectorAll("button"), ...this.scaleTools.querySelectorAll("button")]) control.disabled = Boolean(method);
    const edges = this.element.querySelector("input[data-key='edges']");
    edges.disabled = Boolean(method);
    edges.parentElement.classList.toggle("idle", Boolean(method));
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
    this.drawRelevance();
    this.shownTools.hidden = graph;
    this.patchTools.hidden = graph;
    this.graphTools.hidden = !graph;
    this.scaleTools.hidden = graph;
    const backbone = this.graph.backboneOf[this.selected];
    const pins = this.state("pins").map((pin) => this.graph.vertex(pin));
    const possible = pins.some((pin) => this.graph.backboneOf[pin] === backbone && pin !== this.selected);
    this.pinButton.setAttribute("aria-pressed", String(pinned));
    this.compareButton.setAttribute("aria-pressed", String(this.state("compare")));
    this.compareButton.disabled = Boolean(this.state("relevance")) || (!possible && !this.state("compare"));
    this.compareButton.title = possible ? "Show the selected patch's weights minus those of the pin" : "Pin a patch of the same backbone first (P)";
    this.explorer.root.dataset.locked = this.state("locked");
    this.explorer.states.step.textContent = `layer ${this.state("layer")}, last ${this.facts.layers - 1}`;
    this.explorer.navigator.mark();
  }
}
