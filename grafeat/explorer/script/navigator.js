// Every layer and head at a glance.

import { h, sized } from "./elements.js";
import { KINDS } from "./graph.js";
import { clamp } from "./numbers.js";
import { Part } from "./part.js";
import { percent } from "./words.js";

export class Navigator extends Part {
  build() {
    this.matrices = this.graph.kinds.map((kind) => this.buildMatrix(kind));
    const split = this.panels.length > 2 ? " · bar: split of the mass, notches: even split" : "";
    const legend = h("p", { class: "note" }, `tick: mean entropy, from 0 to that of even attention${split}`);
    return h("div", { class: "navigator" }, ...this.matrices.map((matrix) => matrix.element), legend);
  }

  buildMatrix(kind) {
    const { layers, heads } = this.facts;
    const canvas = h("canvas", { "aria-hidden": "true" });
    const columns = [null, ...Array(heads).keys()];
    const cells = [];
    const grid = h("div", { class: "cells", role: "group", "aria-label": `${KINDS[kind]} attention, layers by heads` });
    grid.append(h("span", { class: "corner" }, "layer"));
    for (const head of columns) grid.append(h("span", { class: "head" }, head === null ? "mean" : String(head)));
    for (let layer = 0; layer < layers; layer++) {
      grid.append(h("span", { class: "layer" }, String(layer)));
      for (const head of columns) {
        const go = () => (this.set("layer", layer), this.set("head", head));
        const cell = h("button", { type: "button", class: "cell", onclick: go, onkeydown: (event) => this.arrows(event, kind) });
        cells.push({ layer, head, cell });
        grid.append(cell);
      }
    }
    const note = kind === 0 ? "on its own grid" : "on the other grids";
    const element = h("section", { class: "matrix", "aria-label": `${KINDS[kind]} attention of every layer and head` }, h("h3", {}, kind === 0 ? "Intra" : "Cross", h("span", { class: "note" }, note)), h("div", { class: "sheet" }, canvas, grid));
    return { kind, canvas, cells, grid, element };
  }

  layout(width, aspect) {
    const columns = this.facts.heads + 1;
    for (const matrix of this.matrices) {
      const grids = matrix.kind === 0 ? 1 : Math.max(1, this.panels.length - 1);
      const half = this.panels.length === 2 && width >= 560 ? (width - 24) / 2 : width;
      const room = (half - 36) / columns - 4;
      const thumb = Math.floor(clamp((room - 2 * (grids - 1)) / grids, 14, 56));
      matrix.thumb = [thumb, Math.round(clamp(thumb * aspect, 12, 60))];
      const cell = [Math.max(24, grids * thumb + 2 * (grids - 1)), matrix.thumb[1] + 9];
      Object.assign(matrix, { cellSize: cell, pitch: [cell[0] + 4, cell[1] + 5] });
      matrix.grid.style.gridTemplateColumns = `32px repeat(${columns}, ${cell[0]}px)`;
      matrix.grid.style.gridTemplateRows = `18px repeat(${this.facts.layers}, ${cell[1]}px)`;
    }
  }

  /** The pressed cell is that of the layer and head on screen. */
  mark() {
    for (const { kind, cells } of this.matrices)
      for (const { layer, head, cell } of cells) {
        const here = layer === this.state("layer") && head === this.state("head");
        cell.setAttribute("aria-pressed", String(here));
        cell.tabIndex = here ? 0 : -1;
        cell.dataset.out = head === null ? false : this.explorer.knockouts.takes(kind, layer, head);
      }
  }

  draw() {
    const vertex = this.selected;
    const rowsAt = new Map();
    const row = (layer, head) => {
      const key = `${layer} ${head}`;
      if (!rowsAt.has(key)) rowsAt.set(key, this.weights.ready(vertex) ? this.readings.row(layer, head, vertex) : null);
      return rowsAt.get(key);
    };
    for (const matrix of this.matrices) this.drawMatrix(matrix, row);
  }

  drawMatrix(matrix, row) {
    const { kind, canvas, cells, pitch, cellSize, thumb } = matrix;
    const own = this.graph.backboneOf[this.selected];
    const width = 36 + pitch[0] * (this.facts.heads + 1);
    const height = 23 + pitch[1] * this.facts.layers;
    const context = sized(canvas, width, height);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    const shown = this.panels.map((panel) => panel.number).filter((backbone) => (backbone === own) === (kind === 0));
    const seen = [this.data, own];
    const described = seen.every((part, i) => part === matrix.described?.[i]);
    for (const { layer, head, cell } of cells) {
      const column = head === null ? 0 : head + 1;
      const [x, y] = [36 + column * pitch[0], 23 + layer * pitch[1]];
      const values = row(layer, head);
      const high = values ? Math.max(...shown.flatMap((backbone) => this.readings.part(values, backbone))) : 0;
      for (const [i, backbone] of shown.entries()) this.drawThumb(context, values, backbone, high, x + i * (thumb[0] + 2), y, thumb);
      this.drawEntropy(context, matrix, layer, column, x, y + thumb[1] + 2, cellSize[0]);
      if (!described) cell.title = this.describe(kind, layer, head);
      if (!described) cell.setAttribute("aria-label", cell.title);
    }
    matrix.described = seen;
  }

  drawThumb(context, values, backbone, high, x, y, [width, height]) {
    const { rows, columns } = this.facts.backbones[backbone];
    const { start } = this.graph.slices[backbone];
    const small = (this.thumbs ??= new Map()).get(backbone) ?? h("canvas", { width: columns, height: rows });
    this.thumbs.set(backbone, small);
    const pixels = new ImageData(columns, rows);
    const map = this.maps.sequential;
    for (let i = 0; i < rows * columns; i++) {
      const value = values ? values[start + i] : NaN;
      const known = value >= 0;
      const index = known ? Math.round((255 * value) / (high || 1)) : 0;
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = map[3 * index + c];
      pixels.data[4 * i + 3] = known ? 255 : 40;
    }
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(small, x, y, width, height);
  }

  /** A tick for the mean entropy; where mass can be split, a bar of the split with notches where it would be even. */
  drawEntropy(context, { kind }, layer, column, x, y, width) {
    const heads = this.facts.heads + 1;
    const { entropy } = this.data.arrays;
    context.fillStyle = this.colour("--hairline");
    context.fillRect(x, y + 1.5, width, 1);
    const share = entropy[(layer * heads + this.slot(column)) * 2 + kind];
    context.fillStyle = this.colour("--ink");
    context.fillRect(x + clamp(share, 0, 1) * (width - 2), y, 2, 4);
    const splits = kind === 1 && this.panels.length > 2 ? this.split(layer, column) : [];
    let left = 0;
    let even = 0;
    for (const [i, [backbone, mass, uniform]] of splits.entries()) {
      context.fillStyle = this.markOf(backbone);
      context.fillRect(x + left * width, y + 5, mass * width - (i < splits.length - 1 ? 1 : 0), 3);
      left += mass;
      even += uniform;
      if (i < splits.length - 1) context.fillStyle = this.colour("--ink"), context.fillRect(x + even * width - 0.5, y + 4, 1, 5);
    }
  }

  /** Where a column of the navigator stands in the data: the mean comes last there. */
  slot(column) {
    return column === 0 ? this.facts.heads : column - 1;
  }

  /** How the cross mass of the selected patch's backbone splits: [backbone, mass, mass under equal logits]. */
  split(layer, column) {
    const { split } = this.data.arrays;
    const count = this.panels.length;
    const own = this.graph.backboneOf[this.selected];
    const at = ((layer * (this.facts.heads + 1) + this.slot(column)) * count + own) * count;
    return this.panels.filter((panel) => panel.number !== own).map((panel) => {
      const { start, stop } = this.graph.slices[panel.number];
      return [panel.number, split[at + panel.number], (stop - start) * (this.facts.equal.cross?.[own][panel.number] ?? 0)];
    });
  }

  describe(kind, layer, head) {
    const column = head === null ? 0 : head + 1;
    const share = this.data.arrays.entropy[(layer * (this.facts.heads + 1) + this.slot(column)) * 2 + kind];
    const said = `${KINDS[kind]}, layer ${layer}, ${this.readings.headName(head)}: mean entropy ${percent(share)} of the largest possible`;
    if (kind === 0 || this.panels.length < 3) return said;
    const parts = this.split(layer, column).map(([backbone, mass, even]) => `${percent(mass)} to ${this.facts.backbones[backbone].name} (even ${percent(even)})`);
    return `${said}; from ${this.graph.place(this.selected)[0]} on average ${parts.join(", ")}`;
  }

  arrows(event, kind) {
    const { layers, heads } = this.facts;
    const [layer, head] = [this.state("layer"), this.state("head") ?? -1];
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!moves[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    const [down, right] = moves[event.key];
    const to = clamp(head + right, -1, heads - 1);
    this.set("layer", clamp(layer + down, 0, layers - 1));
    this.set("head", to < 0 ? null : to);
    const matrix = this.matrices.find((other) => other.kind === kind);
    matrix.cells.find(({ layer, head }) => layer === this.state("layer") && head === this.state("head")).cell.focus();
  }
}
