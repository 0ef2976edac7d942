// One backbone's grid.

import { luminance } from "./colours.js";
import { h, scaled, sized } from "./elements.js";
import { same } from "./numbers.js";
import { short } from "./words.js";

export const [UNKNOWN, ABSENT] = [-1, -2]; // in the place of a colour: no number, hatched; nothing to show, left out

/** One backbone's grid: a heatmap in place over the picture. */
export class Panel {
  constructor(explorer, number) {
    Object.assign(this, { explorer, number, backbone: explorer.facts.backbones[number] });
    const { name, rows, columns } = this.backbone;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.title = h("span", { class: "name", title: name });
    this.note = h("span", { class: "note" });
    this.stage = h(
      "div",
      {
        class: "stage",
        tabindex: "0",
        role: "application",
        "aria-roledescription": "grid of patches",
        "aria-label": `${name}, ${rows} by ${columns} patches. Arrow keys move the selected patch.`,
        onpointermove: (event) => explorer.hands.point(this, event),
        onpointerdown: (event) => explorer.hands.press(this, event),
        onpointerleave: () => explorer.hands.leave(this),
        onkeydown: (event) => explorer.hands.arrows(this, event),
        onfocus: () => explorer.hands.enter(this),
      },
      this.canvas,
    );
    this.element = h(
      "figure",
      { class: "panel", style: `--mark: var(--mark-${number}); --text: var(--text-${number})` },
      h("figcaption", {}, this.title, h("span", { class: "size" }, `${rows} × ${columns}`), this.note),
      this.stage,
    );
    this.small = h("canvas", { width: columns, height: rows });
    this.pixels = new ImageData(columns, rows);
  }

  resize(width, height) {
    this.size = [width, height];
    sized(this.canvas, width, height);
    this.fitted = null;
    this.outlines = this.picture = null;
  }

  /** Leaves out the middle of a name that has no room beside the note. */
  fit() {
    const { name } = this.backbone;
    const seen = `${this.size[0]} ${this.note.textContent.length}`;
    if (this.fitted === seen) return;
    this.fitted = seen;
    this.title.textContent = name;
    for (let length = name.length - 1; length > 7 && this.title.scrollWidth > this.title.clientWidth; length--) this.title.textContent = short(name, length);
  }

  /** The grid's box on the canvas, in CSS pixels. */
  get field() {
    const [x0, y0, x1, y1] = this.backbone.field;
    const [width, height] = this.size;
    return [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height];
  }

  /** The patch under a pointer: a vertex, or null beside the grid. */
  vertexAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const [left, top, width, height] = this.field;
    const column = Math.floor(((event.clientX - box.left - left) / width) * this.backbone.columns);
    const row = Math.floor(((event.clientY - box.top - top) / height) * this.backbone.rows);
    if (column < 0 || row < 0 || column >= this.backbone.columns || row >= this.backbone.rows) return null;
    return this.explorer.graph.slices[this.number].start + row * this.backbone.columns + column;
  }

  /** Colours of the patches: `paint(vertex)` gives an index into the colour map, or UNKNOWN, or ABSENT. */
  draw(paint, map) {
    const { rows, columns } = this.backbone;
    const { start } = this.explorer.graph.slices[this.number];
    const { opacity } = this.explorer.look;
    const indices = new Int16Array(rows * columns);
    for (let i = 0; i < rows * columns; i++) {
      const index = paint(start + i);
      indices[i] = index;
      const known = index >= 0;
      for (let c = 0; c < 3; c++) this.pixels.data[4 * i + c] = known ? map[3 * index + c] : 0;
      this.pixels.data[4 * i + 3] = known ? 255 : 0;
    }
    this.small.getContext("2d").putImageData(this.pixels, 0, 0);
    const [width, height] = this.size;
    const [left, top, w, k] = this.field;
    const context = this.context();
    const hidden = opacity === 0 && same(this.backbone.field, [0, 0, 1, 1]) && indices.every((index) => index >= 0);
    if (!hidden) this.drawPicture(context, 1);
    context.imageSmoothingEnabled = false;
    context.globalAlpha = 1 - opacity;
    context.drawImage(this.small, left, top, w, k);
    context.globalAlpha = 1;
    if (this.explorer.look.outlines && this.explorer.image && this.explorer.outlines) this.drawOutlines(context, indices, map);
    this.drawUnknown(context, indices);
    this.drawLines(context);
  }

  context() {
    const ratio = window.devicePixelRatio || 1;
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }

  drawPicture(context, alpha) {
    const { image } = this.explorer;
    const [width, height] = this.size;
    context.fillStyle = this.explorer.colour("--blank");
    context.fillRect(0, 0, width, height);
    if (!image) return;
    const ratio = window.devicePixelRatio || 1;
    this.picture ??= scaled(image, Math.round(width * ratio), Math.round(height * ratio));
    context.globalAlpha = alpha;
    context.drawImage(this.picture, 0, 0, width, height);
    context.globalAlpha = 1;
  }

  /** White outlines on dark patches, dark ones on light patches: between them the patch's colour is exact. */
  drawOutlines(context, indices, map) {
    this.outlines ??= Object.fromEntries(Object.entries(this.explorer.outlines).map(([ink, canvas]) => [ink, scaled(canvas, ...this.size)]));
    const { rows, columns } = this.backbone;
    const [left, top, width, height] = this.field;
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const index = indices[row * columns + column];
        if (index < 0) continue;
        const ink = luminance(map, index) < 128 ? this.outlines.white : this.outlines.black;
        const [x0, y0] = [left + (column * width) / columns, top + (row * height) / rows];
        const [w, k] = [width / columns, height / rows];
        context.drawImage(ink, x0, y0, w, k, x0, y0, w, k);
      }
  }

  /** Weights that are no numbers are hatched. */
  drawUnknown(context, indices) {
    if (!indices.includes(UNKNOWN)) return;
    const { rows, columns } = this.backbone;
    const [left, top, width, height] = this.field;
    context.save();
    context.beginPath();
    for (let i = 0; i < indices.length; i++)
      if (indices[i] === UNKNOWN)
        context.rect(left + ((i % columns) * width) / columns, top + (Math.floor(i / columns) * height) / rows, width / columns, height / rows);
    context.clip();
    context.fillStyle = this.explorer.colour("--blank");
    context.fillRect(left, top, width, height);
    context.strokeStyle = this.explorer.colour("--second");
    context.beginPath();
    for (let x = left - height; x < left + width; x += 8) context.moveTo(x, top + height), context.lineTo(x + height, top);
    context.stroke();
    context.restore();
  }

  drawLines(context) {
    const { rows, columns } = this.backbone;
    const [left, top, width, height] = this.field;
    context.strokeStyle = "rgba(255, 255, 255, 0.3)";
    context.lineWidth = Math.min(1, width / columns / 12);
    context.beginPath();
    for (let row = 1; row < rows; row++) context.moveTo(left, top + (row * height) / rows), context.lineTo(left + width, top + (row * height) / rows);
    for (let column = 1; column < columns; column++)
      context.moveTo(left + (column * width) / columns, top), context.lineTo(left + (column * width) / columns, top + height);
    context.stroke();
  }
}
