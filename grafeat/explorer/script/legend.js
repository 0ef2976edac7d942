// Below the grids: what the edges keep, and what the colours mean.

import { h, sized } from "./elements.js";
import { KINDS } from "./graph.js";
import { gradient, triangle } from "./ink.js";
import { clamp } from "./numbers.js";
import { Part } from "./part.js";
import { MISSING } from "./weights.js";
import { number, percent } from "./words.js";

export class Legend extends Part {
  build() {
    this.caption = h("p", { class: "caption" });
    this.bars = KINDS.map((kind) => ({ kind, canvas: h("canvas", { "aria-hidden": "true" }), box: null }));
    for (const bar of this.bars) bar.box = h("div", { class: "bar" }, bar.canvas);
    return h("div", { class: "legend" }, this.caption, h("div", { class: "bars" }, ...this.bars.map((bar) => bar.box)));
  }

  draw() {
    if (this.explorer.drawn.method) return this.drawRelevance();
    const map = this.explorer.drawn.signed ? this.maps.diverging : this.maps.sequential;
    for (const [kind, bar] of this.bars.entries()) {
      const there = this.graph.kinds.includes(kind);
      bar.box.hidden = !there;
      bar.box.style.visibility = "visible";
      if (there) this.drawBar(bar.canvas, kind, map, this.readings.uniform(this.explorer.drawn.vertex, kind));
    }
  }

  drawBar(canvas, kind, map, uniform) {
    const width = 200;
    const context = sized(canvas, width, 50);
    context.clearRect(0, 0, width, 50);
    context.font = this.font;
    gradient(context, map, 8, 18, width - 16, 10);
    const { limits, signed } = this.explorer.drawn;
    const [low, high] = limits[kind];
    const text = (said, x, align, y = 48, ink = "--second") => {
      context.fillStyle = this.colour(ink);
      context.textAlign = align;
      context.fillText(said, x, y);
    };
    const log = this.state("logarithmic") && !signed;
    text(`${KINDS[kind]} weight${signed ? ", difference" : ""}`, 8, "left", 12);
    text(`${log ? "≤ " : ""}${number(low)}`, 8, "left");
    text(number(high), width - 8, "right");
    if (signed) text("0", width / 2, "center");
    else if (log) this.decades(low, high, width, text, kind);
    if (!signed) for (const [backbone, weight] of uniform) triangle(context, 8 + clamp(this.explorer.patchView.share(weight, kind), 0, 1) * (width - 16), 29, 5, this.markOf(backbone));
    const other = this.explorer.pointer;
    const value = other === null || this.readings.kindOf(this.explorer.drawn.vertex, other) !== kind ? NaN : this.explorer.drawn.shown[other];
    if (!Number.isNaN(value) && !(value === MISSING && this.readings.missing)) {
      triangle(context, 8 + clamp(this.explorer.patchView.share(value, kind), 0, 1) * (width - 16), 17, -6, this.colour("--ink"));
      text(number(value), width - 8, "right", 12, "--ink");
    } else if (!signed) {
      text("▴ even", width - 8, "right", 12);
    }
  }

  decades(low, high, width, text, kind) {
    if (!(low > 0 && high > low)) return;
    for (let exponent = Math.ceil(Math.log10(low)); 10 ** exponent < high; exponent++) {
      const at = this.explorer.patchView.share(10 ** exponent, kind) * (width - 16);
      if (at > 70 && at < width - 60) text(number(10 ** exponent), 8 + at, "center");
    }
  }

  say(count, share, outgoing, cut) {
    if (!this.graph.kinds.includes(1)) this.caption.textContent = this.panels.length === 1 ? "One backbone: it has no cross edges." : "No cross layers: no edges between grids.";
    else if (count) this.caption.replaceChildren(h("b", {}, count === 1 ? "Strongest edge" : `${count} strongest edges`), ` keep${count === 1 ? "s" : ""} ${percent(share)} of the cross mass${outgoing ? "" : " received"}.`);
    else this.caption.textContent = "No edges drawn.";
    if (this.explorer.drawn.signed) this.caption.append(" They are the selected patch's own.");
    if (cut) this.caption.append(" Dashed: knocked out.");
    if (this.readings.missing) this.caption.append(` ${this.keptSaid()}`);
  }

  keptSaid() {
    const [layer, head] = [this.state("layer"), this.state("head")];
    const kept = this.graph.kinds.map((kind) => `${percent(this.weights.kept(layer, head, this.selected, kind))} of the ${KINDS[kind]} mass`);
    return `This page keeps the ${this.weights.k} strongest weights of each row: ${kept.join(", ")}.`;
  }

  drawRank(largest) {
    const [context, text] = this.plain(this.maps.sequential);
    text("PageRank, × even", 8, 12);
    text("0", 8, 48);
    text(number(largest), 192, 48, "right");
    text("▴ even", 192, 12, "right");
    triangle(context, 8 + clamp(1 / largest, 0, 1) * 184, 29, 5, this.colour("--second"));
  }

  /** One bar for all backbones: their values are in the same unit. */
  drawRelevance() {
    const { signed, limits: [[low, high]], shown, unit } = this.explorer.drawn;
    const [context, text] = this.plain(signed ? this.maps.diverging : this.maps.sequential);
    const other = this.explorer.pointer;
    text(unit, 8, 12);
    text(number(low), 8, 48);
    if (signed) text("0", 100, 48, "center");
    text(number(high), 192, 48, "right");
    if (other === null) return;
    triangle(context, 8 + clamp((shown[other] - low) / (high - low), 0, 1) * 184, 17, -6, this.colour("--ink"));
    text(number(shown[other]), 192, 12, "right", "--ink");
  }

  /** Bars that say nothing keep their place, so that nothing jumps. */
  hide() {
    for (const [kind, { box }] of this.bars.entries()) {
      box.hidden = !this.graph.kinds.includes(kind);
      box.style.visibility = "hidden";
    }
  }

  /** A bar that is the same for all grids, and how to write beside it; the other bar is hidden. */
  plain(map) {
    this.hide();
    const bar = this.bars[this.graph.kinds.at(-1)];
    bar.box.style.visibility = "visible";
    const context = sized(bar.canvas, 200, 50);
    context.clearRect(0, 0, 200, 50);
    context.font = this.font;
    gradient(context, map, 8, 18, 184, 10);
    const text = (said, x, y, align = "left", ink = "--second") => {
      context.fillStyle = this.colour(ink);
      context.textAlign = align;
      context.fillText(said, x, y);
    };
    return [context, text];
  }
}
