// Where attention mass goes.

import { h } from "./elements.js";
import { clamp, effective, same } from "./numbers.js";
import { Part } from "./part.js";
import { number, percent, short, times } from "./words.js";

export class Mass extends Part {
  build() {
    this.title = h("h3", {}, "Attention mass", h("span", { class: "note" }, "routing, not importance"));
    this.rows = h("div", { class: "mass" });
    return h("section", {}, this.title, this.rows);
  }

  /** Whether each grid has a softmax of its own, so that only the spread varies. */
  get apart() {
    return this.panels.length < (this.facts.joint ? 2 : 3);
  }

  draw() {
    const spread = this.apart && this.state("direction") === "outgoing";
    this.title.firstChild.textContent = spread ? "Attention spread" : "Attention mass";
    const chosen = [[this.state("selected"), "selected"], ...this.state("pins").map((pin) => [pin, "pin"])];
    const rows = chosen.flatMap(([patch, mark]) => this.rowsOf(this.graph.vertex(patch), patch, mark));
    const held = this.rows.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    this.rows.replaceChildren(...rows);
    if (held) ([...this.rows.querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === held) ?? this.panels[0].stage).focus();
  }

  rowsOf(vertex, patch, mark) {
    if (!this.weights.ready(vertex)) return [];
    const values = this.readings.values(vertex);
    const outgoing = this.state("direction") === "outgoing";
    const own = this.graph.backboneOf[vertex];
    const [name, row, column] = patch;
    const unpin = mark === "pin" ? h("button", { type: "button", class: "unpin", "aria-label": `Unpin ${name} (${row}, ${column})`, onclick: () => this.set("pins", this.state("pins").filter((pin) => !same(pin, patch))) }, "×") : null;
    const head = h("div", { class: `of ${mark}` }, h("i", { class: mark, "aria-hidden": "true" }, mark === "pin" ? "⌜⌟" : ""), h("b", { style: `color: var(--text-${own})`, title: name }, short(name, 18)), ` (${row}, ${column})`, unpin);
    const lines = this.panels
      .filter((panel) => this.graph.kinds.includes(panel.number === own ? 0 : 1))
      .map((panel) => {
        const { mass, even } = this.readings.massOn(vertex, values, panel.number);
        const part = this.readings.part(values, panel.number);
        const kind = panel.number === own ? "intra" : "cross";
        const whole = outgoing && this.apart;
        const spread = effective(part);
        const [share, notch] = whole ? [spread / part.length, 1] : outgoing ? [mass, even] : [mass / even / 4, 0.25];
        const said = whole ? percent(spread / part.length) : outgoing ? percent(mass) : times(mass / even);
        const title = whole
          ? `${kind}: spread as if over ${number(spread)} of ${part.length} patches alike`
          : outgoing
          ? `${kind} mass ${percent(mass)} on ${panel.backbone.name}; ${percent(even)} if all logits were equal`
          : `${kind}: receives ${times(mass / even)} an even share from ${panel.backbone.name}`;
        return h(
          "div",
          { class: "line", title },
          h("span", { class: "what", style: `color: var(--text-${panel.number})` }, short(panel.backbone.name, 15)),
          h("span", { class: "track" }, h("span", { class: "fill", style: `width: ${100 * clamp(share, 0, 1)}%; background: var(--mark-${panel.number})` }), h("span", { class: "notch", style: `left: ${100 * clamp(notch, 0, 1)}%` })),
          h("span", { class: "much" }, said),
          h("span", { class: "note spread" }, `${kind}, spread over ${number(Number(spread.toPrecision(2)))} of ${part.length} patches`),
        );
      });
    return [head, ...lines];
  }
}
