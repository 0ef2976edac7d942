// The view of a whole layer: its strongest edges, PageRank, communities.

import { arraysOf } from "./bytes.js";
import { MOST } from "./choices.js";
import { strongest, sum } from "./numbers.js";
import { ABSENT } from "./panel.js";
import { Part } from "./part.js";
import { percent, times } from "./words.js";

const TINTS = ["#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00", "#DDDDDD"]; // Tol's light scheme

export class GraphView extends Part {
  /** The strongest edges of the whole layer and head, of each kind. */
  allEdges() {
    const [layer, head, k] = [this.state("layer"), this.state("head"), this.state("edges")];
    const key = `${layer} ${head}`;
    const first = (edges) => edges.slice(0, k);
    if (this.edgesKey === key && this.edgesOf === this.data) return this.foundEdges.map(first);
    const found = [[], []];
    const masses = [0, 0];
    for (let i = 0; i < this.graph.n; i++) {
      if (!this.weights.ready(i)) return null;
      const row = this.weights.row(layer, head, i);
      for (const kind of this.graph.kinds)
        for (const j of strongest(row, MOST, (other) => other !== i && this.readings.kindOf(i, other) === kind)) found[kind].push([i, j, row[j]]);
      for (const [backbone, { start }] of this.graph.slices.entries())
        masses[this.readings.kindOf(i, start)] += this.weights.massOf(layer, head, i, backbone, true) ?? sum(this.readings.part(row, backbone));
    }
    this.foundEdges = found.map((edges) => edges.sort((a, b) => b[2] - a[2]).slice(0, MOST));
    const whole = [this.graph.n, this.graph.n]; // where each kind has a softmax of its own
    Object.assign(this, { edgesKey: key, edgesOf: this.data, masses: this.facts.joint ? masses : whole });
    return this.foundEdges.map(first);
  }

  draw() {
    const measures = this.measured();
    const paint = this.state("paint");
    this.explorer.drawn = null;
    const map = this.maps.sequential;
    const largest = measures ? measures.pagerank.reduce((most, rank) => Math.max(most, rank || 0), 0) : 1;
    for (const panel of this.panels) {
      panel.draw((j) => (measures && paint === "pagerank" && measures.pagerank[j] >= 0 ? Math.round((255 * measures.pagerank[j]) / largest) : ABSENT), map);
      if (measures && paint === "communities" && !measures.pagerank.some(Number.isNaN)) this.drawCommunities(panel, measures.community);
      else if (!measures) this.drawPale(panel);
      panel.note.textContent = "";
      panel.fit();
    }
    this.say(measures);
    this.explorer.legend.hide();
    if (measures && paint === "pagerank") this.explorer.legend.drawRank(largest);
  }

  /** PageRank and communities of this layer and head, once they have come. */
  measured() {
    const [layer, head] = [this.state("layer"), this.state("head")];
    const { pagerank, community } = this.data.arrays;
    if (pagerank) {
      const at = layer * this.graph.n;
      return { pagerank: pagerank.subarray(at, at + this.graph.n), community: community.subarray(at, at + this.graph.n), head: null };
    }
    const key = `${this.data.number} ${layer} ${head}`;
    if (this.measures?.key === key) return this.measures.places ? this.measures : null;
    if (!this.port.live) return null;
    this.measures = { key };
    this.port.graph(this.data.number, layer, head).then(({ places, buffer }) => {
      if (this.measures?.key !== key || this.explorer.closed) return;
      this.measures = { key, places, head, ...arraysOf(places, buffer) };
      this.explorer.draw();
    }, (error) => {
      this.measures = null;
      this.explorer.fail(error);
    });
    return null;
  }

  drawPale(panel) {
    const context = panel.context();
    panel.drawPicture(context, 0.35);
    panel.drawLines(context);
  }

  drawCommunities(panel, community) {
    const { start, stop } = this.graph.slices[panel.number];
    const context = panel.context();
    panel.drawPicture(context, 0.35);
    for (let vertex = start; vertex < stop; vertex++) {
      const [x0, y0, x1, y1] = this.graph.box(vertex);
      const [width, height] = panel.size;
      const [x, y, w, k] = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height];
      context.fillStyle = TINTS[Math.min(community[vertex], TINTS.length - 1)];
      context.globalAlpha = 0.8;
      context.fillRect(x, y, w, k);
      context.globalAlpha = 1;
      if (Math.min(w, k) < 14) continue;
      context.fillStyle = "#1f1f1f";
      context.font = `600 ${Math.min(13, Math.round(k * 0.5))}px ${this.colour("--font") || "sans-serif"}`;
      context.fillText(String.fromCharCode(97 + (community[vertex] % 26)), x + 3, y + Math.min(13, k * 0.5) + 1);
    }
    panel.drawLines(context);
  }

  say(measures) {
    const parts = [[`Strongest edges of layer ${this.state("layer")}, ${this.readings.headName()}`, null]];
    if (measures?.pagerank.some(Number.isNaN)) return this.explorer.write([...parts, [" · NaN weights: nothing to measure", null]]);
    if (!measures) parts.push([this.port.live ? " · measuring the graph …" : "", null]);
    else if (this.state("paint") === "communities") {
      const count = new Set(measures.community).size;
      parts.push([` · ${count === 1 ? "one community" : `${count} communities`} (Louvain)`, null]);
    } else {
      const [best] = strongest(measures.pagerank, 1);
      const [name, row, column] = this.graph.place(best);
      parts.push([" · highest PageRank: ", null], [name, this.graph.backboneOf[best]], [` (${row}, ${column}), ${times(measures.pagerank[best])} even`, null]);
    }
    if (measures && measures.head === null && this.state("head") !== null) parts.push([" · measured on the mean of heads", null]);
    this.explorer.write(parts);
  }

  drawEdges(context) {
    const found = this.allEdges();
    if (!found) {
      this.explorer.legend.caption.textContent = "This graph is too large to draw here; use explorer.to_networkx(k=…).";
      return;
    }
    for (const kind of this.graph.kinds) {
      const high = found[kind][0]?.[2] ?? 1;
      for (const [i, j, weight] of [...found[kind]].reverse()) this.explorer.overlay.drawEdge(context, i, j, weight / high, false, kind === 0);
    }
    const said = this.graph.kinds.map((kind) => {
      const count = found[kind].length;
      return `${kind === 0 ? "╌╌ intra" : "── cross"}: ${count} strongest edges keep ${percent(sum(found[kind].map((edge) => edge[2])) / this.masses[kind])}`;
    });
    this.explorer.legend.caption.textContent = `${said.join(" · ")} of their mass; loops left out. Routing, not importance.`;
  }
}
