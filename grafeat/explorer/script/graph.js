// The numbering of patches.

export const KINDS = ["intra", "cross"];

/** The vertices of all backbones, numbered backbone by backbone, each grid row by row. */
export class Graph {
  constructor(facts) {
    this.backbones = facts.backbones;
    this.kinds = facts.kinds.map((kind) => KINDS.indexOf(kind));
    this.slices = [];
    let start = 0;
    for (const { rows, columns } of facts.backbones) {
      this.slices.push({ start, stop: start + rows * columns });
      start += rows * columns;
    }
    this.n = start;
    this.backboneOf = new Uint8Array(start);
    for (const [number, slice] of this.slices.entries()) this.backboneOf.fill(number, slice.start, slice.stop);
  }

  own(vertex) {
    return this.slices[this.backboneOf[vertex]];
  }

  vertex([name, row, column]) {
    const number = this.backbones.findIndex((backbone) => backbone.name === name);
    return number < 0 ? null : this.slices[number].start + row * this.backbones[number].columns + column;
  }

  place(vertex) {
    const number = this.backboneOf[vertex];
    const { name, columns } = this.backbones[number];
    const inside = vertex - this.slices[number].start;
    return [name, Math.floor(inside / columns), inside % columns];
  }

  /** The box (x0, y0, x1, y1) of a vertex in the picture, in [0, 1]. */
  box(vertex) {
    const [, row, column] = this.place(vertex);
    const { rows, columns, field } = this.backbones[this.backboneOf[vertex]];
    const [x0, y0, x1, y1] = field;
    const [w, h] = [(x1 - x0) / columns, (y1 - y0) / rows];
    return [x0 + column * w, y0 + row * h, x0 + (column + 1) * w, y0 + (row + 1) * h];
  }
}
