// What is drawn over the grids: edges, the selected patch, pins.

import { h, sized } from "./elements.js";
import { strongest, sum } from "./numbers.js";
import { Part } from "./part.js";

export class Overlay extends Part {
  build() {
    this.canvas = h("canvas", { class: "overlay", "aria-hidden": "true" });
    this.label = h("output", { class: "value", hidden: true });
    return [this.canvas, this.label];
  }

  /** The centre and the box of a vertex in the overlay, in CSS pixels. */
  placed(vertex) {
    const panel = this.panels[this.graph.backboneOf[vertex]];
    const [x0, y0, x1, y1] = this.graph.box(vertex);
    const [width, height] = panel.size;
    const { offsetLeft, offsetTop } = panel.stage;
    const box = [offsetLeft + x0 * width, offsetTop + y0 * height, (x1 - x0) * width, (y1 - y0) * height];
    return { x: box[0] + box[2] / 2, y: box[1] + box[3] / 2, box };
  }

  draw() {
    if (!this.data || !(this.explorer.drawn || this.state("view") === "graph")) return;
    const { clientWidth, clientHeight } = this.explorer.gridsBox;
    const context = sized(this.canvas, clientWidth, clientHeight);
    context.clearRect(0, 0, clientWidth, clientHeight);
    if (this.explorer.hands.peeking) return;
    if (this.state("view") === "graph") this.explorer.graphView.drawEdges(context);
    else if (this.explorer.drawn.method) this.drawStrongest(context);
    else this.drawPatchEdges(context);
    for (const pin of this.state("pins")) this.drawBrackets(context, this.graph.vertex(pin));
    this.drawOutline(context, this.selected);
    if (this.explorer.knockouts.patch !== null) this.drawCross(context, this.explorer.knockouts.patch);
    this.drawValue();
  }

  drawPatchEdges(context) {
    const { vertex, values } = this.explorer.drawn;
    const outgoing = this.state("direction") === "outgoing";
    const found = strongest(values, this.state("edges"), (j) => this.readings.kindOf(vertex, j) === 1);
    const total = outgoing && !this.facts.joint ? 1 : sum(this.panels.map((panel) => (panel.number === this.graph.backboneOf[vertex] ? 0 : this.readings.massOn(vertex, values, panel.number).mass)));
    const high = found.length ? values[found[0]] : 1;
    let cut = false;
    for (const other of [...found].reverse()) {
      const [from, to] = outgoing ? [vertex, other] : [other, vertex];
      const out = this.explorer.knockouts.cuts(from, to);
      cut ||= out;
      this.drawEdge(context, from, to, values[other] / high, other === this.explorer.pointer, out);
    }
    this.explorer.legend.say(found.length, sum(found.map((j) => values[j])) / (total || 1), outgoing, cut);
  }

  /** A curve that is full at its ends and pale between them, with a dot where it is attended to. */
  drawEdge(context, from, to, strength, marked = false, dashed = false) {
    const [a, b] = [this.placed(from), this.placed(to)];
    const ink = dashed ? this.colour("--ink") : this.markOf(this.graph.backboneOf[to]);
    const beside = Math.abs(b.x - a.x) > Math.abs(b.y - a.y);
    const [dx, dy] = beside ? [(b.x - a.x) / 2, 0] : [0, (b.y - a.y) / 2];
    const path = new Path2D();
    path.moveTo(a.x, a.y);
    path.bezierCurveTo(a.x + dx, a.y + dy, b.x - dx, b.y - dy, b.x, b.y);
    const width = marked ? 3.5 : 0.8 + 1.8 * strength;
    context.setLineDash(dashed ? [4, 3] : []);
    context.lineWidth = width + 1.6;
    context.strokeStyle = this.colour("--casing");
    context.stroke(path);
    context.lineWidth = width;
    context.strokeStyle = ink;
    context.globalAlpha = marked ? 1 : 0.55 + 0.45 * strength;
    context.stroke(path);
    context.globalAlpha = 1;
    context.setLineDash([]);
    context.beginPath();
    context.arc(b.x, b.y, marked ? 5 : 2.2 + 1.6 * strength, 0, 2 * Math.PI);
    context.fillStyle = ink;
    context.fill();
    context.lineWidth = 1.2;
    context.strokeStyle = this.colour("--paper");
    context.stroke();
  }

  drawOutline(context, vertex) {
    const [x, y, w, k] = this.placed(vertex).box;
    context.strokeStyle = "#000";
    context.lineWidth = 5;
    context.strokeRect(x, y, w, k);
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.strokeRect(x, y, w, k);
  }

  drawBrackets(context, vertex) {
    const [x, y, w, k] = this.placed(vertex).box;
    const arm = Math.min(w, k) * 0.3;
    const path = new Path2D();
    for (const [cx, cy, sx, sy] of [[x, y, 1, 1], [x + w, y, -1, 1], [x, y + k, 1, -1], [x + w, y + k, -1, -1]]) {
      path.moveTo(cx + sx * arm, cy);
      path.lineTo(cx, cy);
      path.lineTo(cx, cy + sy * arm);
    }
    this.stroked(context, path);
  }

  /** The patch that is knocked out. */
  drawCross(context, vertex) {
    const [x, y, w, k] = this.placed(vertex).box;
    const path = new Path2D();
    path.moveTo(x, y);
    path.lineTo(x + w, y + k);
    path.moveTo(x + w, y);
    path.lineTo(x, y + k);
    this.stroked(context, path);
  }

  /** The strongest patches over all backbones together, numbered. */
  drawStrongest(context) {
    context.font = `700 ${this.font}`;
    context.textAlign = "center";
    for (const [place, vertex] of this.explorer.drawn.strongest.entries()) {
      const { box: [x, y] } = this.placed(vertex);
      context.beginPath();
      context.arc(x + 9, y + 9, 8, 0, 2 * Math.PI);
      context.fillStyle = "#fff";
      context.fill();
      context.strokeStyle = "#000";
      context.lineWidth = 1.5;
      context.stroke();
      context.fillStyle = "#000";
      context.fillText(String(place + 1), x + 9, y + 13);
    }
  }

  /** Lines that are seen on any colour. */
  stroked(context, path) {
    for (const [ink, width] of [["#000", 5.5], ["#fff", 2.5]]) {
      context.strokeStyle = ink;
      context.lineWidth = width;
      context.stroke(path);
    }
  }

  /** The weight under the pointer, beside its patch. */
  drawValue() {
    const other = this.explorer.pointer;
    this.label.hidden = true;
    if (other === null || !this.explorer.drawn || other === this.selected || this.state("view") === "graph") return;
    const value = this.explorer.drawn.shown[other];
    const { x, box } = this.placed(other);
    this.label.textContent = this.readings.said(value);
    this.label.style.left = `${x}px`;
    this.label.style.top = `${box[1] + box[3] + 4}px`;
    this.label.hidden = false;
  }
}
