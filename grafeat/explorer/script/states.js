// The vertex states, step by step.

import { h, sized } from "./elements.js";
import { clamp } from "./numbers.js";
import { Part } from "./part.js";

const PLAY = 900; // milliseconds on each layer

export class States extends Part {
  build() {
    this.playButton = h("button", { type: "button", class: "play", "aria-label": "Play layers", onclick: () => this.play(!this.playing) }, "▶");
    this.step = h("span", { class: "note" });
    this.canvas = h("canvas", { role: "img" });
    this.canvas.onclick = (event) => this.click(event);
    const player = h("div", { class: "player", hidden: this.facts.layers === 1 }, this.playButton, h("span", {}, "Play layers"), this.step);
    return h("section", { class: "states" }, h("h3", {}, "Vertex states", h("span", { class: "note" }, "like colours, like states")), this.canvas, player);
  }

  draw() {
    const seen = [this.data, this.state("layer"), this.explorer.colours];
    if (seen.every((part, i) => part === this.seen?.[i])) return;
    this.seen = seen;
    const { states } = this.data.arrays;
    const steps = states.length / (3 * this.graph.n);
    const after = [null, ...this.facts.steps];
    const aspect = this.data.aspect;
    const side = Math.floor(clamp(220 / steps - 4, 16, 44));
    const high = Math.round(side * aspect);
    const [left, top] = [0, 16];
    const width = steps * (side + 4);
    const context = sized(this.canvas, width, top + this.panels.length * (high + 4));
    context.clearRect(0, 0, width, 999);
    context.imageSmoothingEnabled = false;
    context.font = this.font;
    this.pitch = side + 4;
    for (let step = 0; step < steps; step++) {
      const here = after[step]?.layer === this.state("layer");
      context.fillStyle = this.colour(here ? "--ink" : "--second");
      context.textAlign = "center";
      context.fillText(said(after[step], after[step - 1], side), left + step * (side + 4) + side / 2, 11);
      for (const { number: backbone, backbone: { rows, columns } } of this.panels) {
        const small = h("canvas", { width: columns, height: rows });
        const pixels = new ImageData(columns, rows);
        const from = 3 * (step * this.graph.n + this.graph.slices[backbone].start);
        for (let i = 0; i < rows * columns; i++) pixels.data.set([states[from + 3 * i], states[from + 3 * i + 1], states[from + 3 * i + 2], 255], 4 * i);
        small.getContext("2d").putImageData(pixels, 0, 0);
        const [x, y] = [left + step * (side + 4), top + backbone * (high + 4)];
        context.drawImage(small, x, y, side, high);
        context.fillStyle = this.markOf(backbone);
        context.fillRect(x, y + high, side, 2);
      }
      if (here) {
        context.strokeStyle = this.colour("--accent");
        context.lineWidth = 2;
        context.strokeRect(left + step * (side + 4) - 1, top - 1, side + 2, this.panels.length * (high + 4));
      }
    }
    this.canvas.setAttribute("aria-label", `Vertex states before the first step and after each of ${steps - 1}, as colours of their first three principal components, the same for all backbones`);
  }

  click(event) {
    const step = Math.floor(event.offsetX / this.pitch);
    if (step > 0) this.set("layer", this.facts.steps[step - 1].layer);
  }

  play(on) {
    clearInterval(this.playing);
    this.playing = on ? setInterval(() => this.set("layer", (this.state("layer") + 1) % this.facts.layers), PLAY) : null;
    this.playButton.textContent = on ? "❚❚" : "▶";
    this.playButton.setAttribute("aria-label", on ? "Pause" : "Play layers");
  }
}

// What stands above the states after a step: the number of its layers, behind their kind where a new one begins.
function said(step, before, side) {
  if (!step) return "in";
  if (!step.kind || step.kind === before?.kind) return String(step.layer);
  return side < 36 ? `${step.kind[0]}${step.layer}` : `${step.kind} ${step.layer}`;
}
