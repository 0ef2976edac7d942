// What each backbone is worth to the prediction, for this picture and over a set.

import { Asked, instead } from "./asked.js";
import { h } from "./elements.js";
import { Part } from "./part.js";
import { capital, percent, short, signed } from "./words.js";

export class Values extends Part {
  build() {
    this.asked = new Asked(() => this.explorer.soon());
    this.note = h("span", { class: "note" });
    this.rows = h("div", {});
    this.sum = h("p", { class: "note sum" });
    this.drawRows(null);
    return h("section", { class: "values" }, h("h3", {}, "Value of each backbone", this.note), this.rows, this.sum, ...this.buildShares());
  }

  /** Shares over a set of pictures, if the explorer was given a report. */
  buildShares() {
    const { report } = this.facts;
    if (!report) return [];
    const rows = report.shares.map((share, backbone) => {
      const [low, high] = report.intervals[backbone];
      const interval = low === null ? null : h("span", { class: "whisker", style: `left: ${100 * low}%; width: ${100 * (high - low)}%` });
      return this.row(
        backbone,
        h("span", { class: "track" }, h("span", { class: "fill", style: `width: ${100 * (share ?? 0)}%; background: var(--mark-${backbone})` }), interval),
        share === null ? "none" : percent(share),
        low === null ? "" : `${percent(low)} to ${percent(high)}`,
      );
    });
    return [h("h3", {}, `Share in ${report.pictures.toLocaleString("en")} pictures`, h("span", { class: "note" }, "95% intervals")), ...rows];
  }

  row(backbone, track, much, note) {
    const { name } = this.facts.backbones[backbone];
    return h(
      "div",
      { class: note === null ? "change brief" : "change" },
      h("span", { class: "what", style: `color: var(--text-${backbone})`, title: name }, short(name, 12)),
      track,
      h("span", { class: "much" }, much),
      note === null ? null : h("span", { class: "note" }, note),
    );
  }

  /** Asked for once the panel is seen. */
  draw() {
    if (!this.seen) return;
    const found = this.asked.get(String(this.data.number), () => this.port.values(this.data));
    if (found === this.found) return;
    this.found = found;
    const { logits } = this.data.arrays;
    const said = this.facts.classes[logits.indexOf(Math.max(...logits))];
    this.note.textContent = said === undefined ? "" : `for '${said}'`;
    if (found.waiting && !found.late) return;
    const values = found.value?.values;
    this.drawRows(values ?? null);
    if (!values) this.sum.textContent = capital(instead(found));
    else {
      const [none, full] = values.slice(-2);
      const untrained = this.facts.trained ? "" : " The model was never trained.";
      this.sum.textContent = `Centred logit of '${said}': ${signed(none)} without any backbone, ${signed(full)} with all.${untrained}`;
    }
  }

  drawRows(values) {
    const count = this.panels.length;
    const most = values ? Math.max(...values.slice(0, count).map(Math.abs), 1e-6) : 1;
    const rows = this.panels.map(({ number: backbone }) => {
      const share = values ? values[backbone] / most : 0;
      const side = share < 0 ? "right: 50%" : "left: 50%";
      const fill = values ? h("span", { class: "fill", style: `${side}; width: ${50 * Math.abs(share)}%; background: var(--mark-${backbone})` }) : null;
      return this.row(backbone, h("span", { class: "track zero" }, fill), values ? signed(values[backbone]) : "", null);
    });
    this.rows.replaceChildren(...rows);
  }
}
