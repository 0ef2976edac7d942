// The pictures to choose from.

import { bytesOf, typeOf } from "./bytes.js";
import { h } from "./elements.js";
import { clamp, same } from "./numbers.js";
import { Part } from "./part.js";

export class Strip extends Part {
  build() {
    const turn = (by, label, sign) => h("button", { type: "button", class: "turn", "aria-label": label, onclick: () => this.turn(by) }, sign);
    this.strip = h("div", { class: this.facts.images ? "strip" : "strip coarse", role: "group", "aria-label": "Pictures" });
    this.where = h("span", { class: "note" });
    [this.previous, this.next] = [turn(-1, "Previous picture", "‹"), turn(1, "Next picture", "›")];
    return h("section", {}, h("h3", {}, "Picture", this.where), h("div", { class: "stripline" }, this.previous, this.strip, this.next));
  }

  get shown() {
    return this.facts.shown ?? [...Array(this.facts.pictures).keys()];
  }

  turn(by) {
    const { shown } = this;
    const at = shown.indexOf(this.state("picture"));
    this.set("picture", shown[clamp(at + by, 0, shown.length - 1)]);
  }

  async fill() {
    const { shown } = this;
    const current = this.state("picture");
    const at = shown.indexOf(current);
    const first = Math.floor(at / 4) * 4;
    const numbers = shown.slice(first, first + 4);
    this.where.textContent = `number ${current} · ${at + 1} of ${shown.length.toLocaleString("en")}`;
    this.previous.disabled = at === 0;
    this.next.disabled = at === shown.length - 1;
    if (!same(this.listed, numbers)) {
      this.listed = numbers;
      const { thumbnails } = await this.port.thumbnails(numbers).catch(() => {
        this.listed = null; // asked again with the next picture
        return { thumbnails: numbers.map(() => "") };
      });
      if (!same(this.listed, numbers) || this.explorer.closed) return;
      this.strip.replaceChildren(
        ...numbers.map((picture, i) =>
          h("button", { type: "button", class: "picture", "data-picture": picture, "aria-label": `Picture ${picture}`, onclick: () => this.set("picture", picture) }, h("img", { src: `data:${typeOf(bytesOf(thumbnails[i].slice(0, 4)))};base64,${thumbnails[i]}`, alt: "" })),
        ),
      );
    }
    for (const button of this.strip.children) button.setAttribute("aria-pressed", String(Number(button.dataset.picture) === this.state("picture")));
  }
}
