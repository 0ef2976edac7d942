// What becomes of the logits without a patch, some edges, or a backbone.

import { Asked, instead } from "./asked.js";
import { h } from "./elements.js";
import { KINDS } from "./graph.js";
import { clamp, rounded, same } from "./numbers.js";
import { Part } from "./part.js";
import { number, short, signed } from "./words.js";

const ROWS = 10; // classes that are shown
const LEAST = 0.1; // logits to which bars reach, or further: less than that is little, and must look it

export class Knockouts extends Part {
  build() {
    this.asked = new Asked(() => this.explorer.draw());
    this.menu = h("select", { "aria-label": "What to knock out", onchange: () => this.chosen() });
    this.fillMenu();
    this.button = h("button", { type: "button", class: "act", title: "Knock out, or put back (K)", onclick: () => this.toggle() }, "Knock out");
    this.note = h("span", { class: "note" });
    this.said = h("p", { class: "said", role: "status" });
    const longest = Math.max(...this.facts.classes.map((name) => Math.min(name.length, 12)));
    const style = `min-height: ${18 + 20 * Math.min(ROWS, this.facts.classes.length)}px; --what: ${clamp(7 * longest + 6, 20, 72)}px`;
    this.rows = h("div", { class: "changes", style });
    const line = h("div", { class: "pick" }, h("span", { class: "select" }, this.menu), this.button);
    return h("section", { class: "knockouts" }, h("h3", {}, "Knock-out", this.note), line, this.said, this.rows);
  }

  /** What can be knocked out: what is selected, edges between grids, whole backbones. */
  fillMenu() {
    const names = this.facts.backbones.map((backbone) => backbone.name);
    const pairs = names.flatMap((query) => names.filter((key) => key !== query).map((key) => ["pair", query, key]));
    const option = (value, text) => h("option", { value: JSON.stringify(value) }, text);
    const group = (label, options) => (options.length ? h("optgroup", { label }, ...options) : null);
    const kinds = this.graph.kinds.map((kind) => KINDS[kind]);
    const cross = kinds.includes("cross");
    this.here = [
      ...(this.graph.n > 1 ? [["patch"]] : []),
      ...kinds.flatMap((kind) => [["head", kind], ["layer", kind]]),
    ].map((value) => option(value, ""));
    this.pairsHere = cross ? pairs.map((pair) => option([...pair, "here"], "")) : [];
    const groups = [
      group("What is selected", this.here),
      group("Edges between grids", cross ? [option(["cross"], "all cross edges"), ...pairs.map((pair) => option(pair, this.name(pair)))] : []),
      group("The same, of the selected layer", this.pairsHere),
      group("A whole backbone", names.length > 1 ? names.map((name) => option(["backbone", name], name)) : []),
    ];
    this.menu.append(...groups.filter(Boolean));
  }

  /** What the menu says, for the patch, layer and head on screen; null without a head. */
  get subject() {
    return this.subjectOf(JSON.parse(this.menu.value));
  }

  subjectOf([form, ...rest]) {
    const [layer, head] = [this.state("layer"), this.state("head")];
    if (form === "patch") return ["patch", ...this.state("selected")];
    if (form === "layer") return [form, ...rest, layer];
    if (form === "head") return head === null ? null : [form, ...rest, layer, head];
    return [form, ...rest.map((part) => (part === "here" ? layer : part))];
  }

  toggle() {
    const { subject } = this;
    if (subject) this.set("knocked", same(this.state("knocked"), subject) ? [] : subject);
  }

  /** Something else was chosen: it takes the place of what is out. */
  chosen() {
    if (this.state("knocked").length && this.subject) this.set("knocked", this.subject);
    else this.explorer.draw();
  }

  /** What is out, in words. */
  name(knocked) {
    return this.parts(knocked).map(([text]) => text).join("");
  }

  /** The same for the menu, whose end may be cut off: the patch's place comes first. */
  label(knocked) {
    return knocked[0] === "patch" ? `patch (${knocked[2]}, ${knocked[3]}) of ${knocked[1]}` : this.name(knocked);
  }

  /** The same in parts, each with the number of the backbone whose name it is. */
  parts([form, ...rest]) {
    const backbone = (name) => [name, this.facts.backbones.findIndex((one) => one.name === name)];
    const text = (said) => [said, null];
    if (form === "patch") return [text("patch "), backbone(rest[0]), text(` (${rest[1]}, ${rest[2]})`)];
    if (form === "pair") return [text("edges "), backbone(rest[0]), text(" → "), backbone(rest[1]), text(rest.length > 2 ? `, layer ${rest[2]}` : "")];
    if (form === "backbone") return [text("backbone "), backbone(rest[0])];
    if (form === "cross") return [text("all cross edges")];
    return [text(`${rest[0]} edges, layer ${rest[1]}${form === "head" ? `, head ${rest[2]}` : ""}`)];
  }

  /** Whether the edges from one vertex to another are out, of the layer and head on screen. */
  cuts(from, to) {
    const [form, ...rest] = this.state("knocked");
    if (form === undefined) return false;
    const [query, key] = [from, to].map((vertex) => this.graph.place(vertex));
    const kind = query[0] === key[0] ? "intra" : "cross";
    const [layer, head] = [this.state("layer"), this.state("head")];
    if (form === "patch") return same(key, rest);
    if (form === "backbone") return rest[0] === query[0] || rest[0] === key[0];
    if (form === "pair") return rest[0] === query[0] && rest[1] === key[0] && (rest.length < 3 || rest[2] === layer);
    if (form === "cross") return kind === "cross";
    return rest[0] === kind && rest[1] === layer && (form === "layer" || rest[2] === head);
  }

  /** Whether a head is out, with its layer or by itself. */
  takes(kind, layer, head) {
    const knocked = this.state("knocked");
    return same(knocked, ["layer", KINDS[kind], layer]) || same(knocked, ["head", KINDS[kind], layer, head]);
  }

  /** The patch that is out; null if none is. */
  get patch() {
    const [form, ...place] = this.state("knocked");
    return form === "patch" ? this.graph.vertex(place) : null;
  }

  /** Another picture: what was said of the last one no longer holds. */
  forget() {
    this.after = this.seen = null;
  }

  draw() {
    this.drawMenu();
    const knocked = this.state("knocked");
    const found = knocked.length ? this.asked.get(JSON.stringify([this.data.number, knocked]), () => this.port.effect(this.data, knocked)) : null;
    const seen = [this.data, found, JSON.stringify(knocked)];
    if (seen.every((part, i) => part === this.seen?.[i])) return;
    this.seen = seen;
    for (const [backbone, panel] of this.panels.entries()) panel.element.dataset.out = same(knocked, ["backbone", this.facts.backbones[backbone].name]);
    this.drawSaid(knocked, found);
    if (found?.waiting) return;
    this.after = found?.value?.values ?? null;
    this.drawRows();
    this.explorer.prediction.draw();
  }

  drawMenu() {
    for (const option of [...this.here, ...this.pairsHere]) {
      const value = JSON.parse(option.value);
      const subject = this.subjectOf(value);
      const text = subject ? this.label(subject) : `${value[1]} edges of one head: choose a head`;
      if (option.textContent !== text) option.textContent = text;
      option.disabled = !subject;
    }
    const { subject } = this;
    const out = subject && same(this.state("knocked"), subject);
    this.button.textContent = out ? "Put back" : "Knock out";
    this.button.setAttribute("aria-pressed", String(Boolean(out)));
    this.button.disabled = !subject;
  }

  /** Says what changed for the class that the model had said. */
  drawSaid(knocked, found) {
    if (!knocked.length) return this.said.replaceChildren(h("span", { class: "note" }, "Lock a patch with a click, or choose something else to take out: the model is run without it."));
    const back = h("button", { type: "button", class: "unpin", "aria-label": "Put back", title: "Put back (Esc)", onclick: () => this.set("knocked", []) }, "×");
    const without = ["Without ", ...this.explorer.inColour(this.parts(knocked)), ": "];
    this.said.replaceChildren(h("span", {}, ...without, found.value ? this.told(found.value.values) : instead(found)), back);
  }

  told(after) {
    const { classes } = this.facts;
    const before = this.data.arrays.logits;
    const [said, now] = [before, after].map((logits) => logits.indexOf(logits.reduce((most, logit) => Math.max(most, logit), -Infinity)));
    if (said < 0 || now < 0) return "the logits are NaN.";
    const change = after[said] - before[said];
    const little = Math.abs(change) < 0.005;
    const moved = `'${classes[said]}' ${little ? "stays as it was" : `${change > 0 ? "gains" : "loses"} ${Math.abs(change).toFixed(2)}`}`;
    return `${moved}, ${now === said ? `still says '${classes[now]}'` : `now says '${classes[now]}'`}.`;
  }

  /** One row for each class, most changed first; the logits alone while nothing is out. */
  drawRows() {
    const { after } = this;
    const before = this.data.arrays.logits;
    const shown = after ? after.map((logit, c) => logit - before[c]) : before;
    const size = after ? shown.map(Math.abs) : before;
    const order = [...before.keys()].sort((a, b) => size[b] - size[a]).slice(0, ROWS);
    const reach = rounded(Math.max(...order.map((c) => Math.abs(shown[c]) || 0), LEAST));
    this.note.textContent = after ? "change of the logits" : "logits";
    const said = before.indexOf(Math.max(...before));
    const now = after ? after.indexOf(Math.max(...after)) : said;
    const rows = order.map((c) => this.rowOf(c, shown[c], reach, after ? `${signed(before[c])} → ${signed(after[c])}`.replaceAll("+", "") : "", c === said || c === now));
    this.rows.replaceChildren(this.axis(reach), ...rows);
  }

  /** Where the bars end. */
  axis(reach) {
    const ends = [`−${number(reach)}`, `+${number(reach)}`].map((end) => h("span", {}, end));
    return h("div", { class: "change axis" }, h("span", {}), h("span", { class: "ends" }, ...ends), h("span", {}), h("span", { class: "note" }, this.after ? "before → after" : ""));
  }

  rowOf(c, value, reach, note, strong) {
    const name = this.facts.classes[c];
    const sign = `${value < 0 ? "minus" : "plus"}${this.after ? "" : " plain"}`;
    const fill = h("span", { class: `fill ${sign}`, style: `width: ${50 * Math.abs(value / reach || 0)}%` });
    return h(
      "div",
      { class: strong ? "change strong" : "change" },
      h("span", { class: "what", title: name }, short(name, 12)),
      h("span", { class: "track zero" }, fill),
      h("span", { class: "much" }, signed(value)),
      h("span", { class: "note" }, note),
    );
  }
}
