// The explorer as a whole: it holds state and data, and has its parts drawn.

import { arraysOf, typeOf } from "./bytes.js";
import { KEYS, STATE } from "./choices.js";
import { colourMap } from "./colours.js";
import { Controls } from "./controls.js";
import { Dots } from "./dots.js";
import { h } from "./elements.js";
import { Graph } from "./graph.js";
import { GraphView } from "./graph_view.js";
import { Hands } from "./hands.js";
import { Knockouts } from "./knockouts.js";
import { Legend } from "./legend.js";
import { Mass } from "./mass.js";
import { Navigator } from "./navigator.js";
import { clamp, same } from "./numbers.js";
import { outlinesOf } from "./outlines.js";
import { Overlay } from "./overlay.js";
import { Panel } from "./panel.js";
import { PatchView } from "./patch_view.js";
import { Prediction } from "./prediction.js";
import { Readings } from "./readings.js";
import { RelevanceView } from "./relevance_view.js";
import { States } from "./states.js";
import { Strip } from "./strip.js";
import { Values } from "./values.js";
import { weightsOf } from "./weights.js";
import { short } from "./words.js";

export class Explorer {
  constructor(port, root) {
    Object.assign(this, { port, root, facts: port.facts, data: null, pointer: null, drawn: null, closed: false });
    this.graph = new Graph(this.facts);
    this.maps = { sequential: colourMap(this.facts.maps.sequential), diverging: colourMap(this.facts.maps.diverging) };
    this.readings = new Readings(this);
    this.panels = this.facts.backbones.map((_, backbone) => new Panel(this, backbone));
    [this.patchView, this.graphView, this.overlay] = [new PatchView(this), new GraphView(this), new Overlay(this)];
    [this.legend, this.controls, this.navigator, this.hands] = [new Legend(this), new Controls(this), new Navigator(this), new Hands(this)];
    [this.strip, this.prediction, this.mass] = [new Strip(this), new Prediction(this), new Mass(this)];
    [this.states, this.dots] = [new States(this), new Dots(this)];
    [this.relevanceView, this.knockouts, this.values] = [new RelevanceView(this), new Knockouts(this), new Values(this)];
    this.build();
    this.cleanups = STATE.map((key) => port.on(key, () => this.changed(key)));
    this.observe();
    this.layout();
    this.show(this.state("picture"));
  }

  state(key) {
    return this.port.get(key);
  }

  set(key, value) {
    if (!same(this.state(key), value)) this.port.set(key, value);
  }

  get look() {
    if (this.hands.peeking) return { opacity: 1, outlines: false };
    return { opacity: this.state("opacity"), outlines: this.state("outlines") };
  }

  /** The picture's outlines; null at first, so that the heatmaps need not wait for them. */
  get outlines() {
    if (this.inks === undefined) {
      this.inks = null;
      const { image } = this;
      setTimeout(() => {
        if (this.image !== image || this.closed) return;
        this.inks = outlinesOf(image);
        this.draw();
      });
    }
    return this.inks;
  }

  get selected() {
    return this.graph.vertex(this.state("selected"));
  }

  colour(variable) {
    return this.colours[variable] ?? (this.colours[variable] = getComputedStyle(this.root).getPropertyValue(variable).trim());
  }

  build() {
    const { root } = this;
    root.classList.add("grafeat");
    root.setAttribute("role", "region");
    root.setAttribute("aria-label", "Attention explorer");
    root.onkeydown = (event) => this.hands.key(event);
    root.addEventListener("focusout", () => this.hands.peek(false));
    root.onkeyup = (event) => event.key.toLowerCase() === "o" && this.hands.peek(false);
    this.sentence = h("p", { class: "sentence" });
    this.live = h("p", { class: "unseen", "aria-live": "polite", role: "status" });
    this.gridsBox = h("div", { class: "grids" }, ...this.panels.map((panel) => panel.element), ...this.overlay.build());
    const side = h("aside", { class: "side", "aria-label": "Picture, prediction and attention mass" }, ...[this.strip, this.prediction, this.mass, this.states, this.dots].map((part) => part.build()));
    this.effects = h("div", { class: "effects" }, this.knockouts.build(), this.values.build());
    const main = h("div", { class: "main" }, this.gridsBox, this.legend.build(), this.controls.build(), this.navigator.build(), this.effects);
    const keys = h("div", { class: "keys", "aria-label": "Keys" }, ...KEYS.map(([keys, does]) => h("span", {}, ...keys.split(" ").map((k) => h("kbd", {}, k)), ` ${does}`)));
    root.replaceChildren(this.sentence, h("div", { class: "body" }, main, side), keys, this.live);
    this.paintTheme();
  }

  observe() {
    this.resizes = new ResizeObserver(() => this.layout());
    for (const element of [this.root, this.gridsBox]) this.resizes.observe(element);
    this.themes = new MutationObserver(() => this.paintTheme());
    this.themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
    this.sights = new IntersectionObserver((entries) => {
      this.values.seen = entries.at(-1).isIntersecting;
      this.soon();
    });
    this.sights.observe(this.effects);
    this.media = window.matchMedia("(prefers-color-scheme: dark)");
    this.onMedia = () => this.paintTheme();
    this.media.addEventListener("change", this.onMedia);
  }

  close() {
    this.closed = true;
    this.states.play(false);
    for (const cleanup of this.cleanups) cleanup();
    this.resizes.disconnect();
    this.themes.disconnect();
    this.sights.disconnect();
    this.media.removeEventListener("change", this.onMedia);
    this.port.close();
  }

  paintTheme() {
    const { jpThemeLight } = document.body.dataset;
    const dark = jpThemeLight ? jpThemeLight === "false" : window.matchMedia("(prefers-color-scheme: dark)").matches;
    this.root.dataset.theme = dark ? "dark" : "light";
    for (const [backbone, { colour }] of this.facts.backbones.entries()) {
      this.root.style.setProperty(`--mark-${backbone}`, dark ? colour.mark_on_dark : colour.mark);
      this.root.style.setProperty(`--text-${backbone}`, dark ? colour.text_on_dark : colour.text);
    }
    this.colours = {};
    this.draw();
    setTimeout(() => this.draw(), 300); // JupyterLab hides its panels while it changes its theme
  }

  /** Sizes of the grids and of the navigator, for the room there is. */
  layout() {
    const room = this.root.clientWidth;
    if (!room || this.closed) return;
    const seen = [room, this.data, window.devicePixelRatio];
    if (seen.every((part, i) => part === this.laid?.[i])) return this.overlay.draw();
    this.laid = seen;
    const wide = room >= 820;
    this.root.dataset.wide = wide;
    const gap = 20;
    const width = room - (wide ? 248 + 32 : 0);
    const count = this.panels.length;
    const rows = Math.ceil(count / clamp(Math.floor((width + gap) / (150 + gap)), 1, count));
    const across = Math.ceil(count / rows);
    const aspect = this.data?.aspect ?? this.facts.aspect;
    const side = Math.floor(Math.min((width - gap * (across - 1)) / across, 420, Math.max(420 / aspect, 120)));
    this.gridsBox.style.gridTemplateColumns = `repeat(${across}, ${side}px)`;
    for (const panel of this.panels) panel.resize(side, Math.round(side * aspect));
    this.navigator.layout(width, aspect);
    this.draw();
  }

  /** Fetches a picture's data and draws it; the last one asked for wins. */
  async show(picture) {
    this.wanted = picture;
    this.busy(true);
    try {
      const data = await this.port.picture(picture);
      const arrays = arraysOf(data.places, data.buffer);
      const image = arrays.image ? await createImageBitmap(new Blob([arrays.image], { type: typeOf(arrays.image) })) : null;
      if (this.wanted !== picture || this.closed) return;
      this.data = { ...data, arrays };
      this.failure = null;
      this.image = image;
      this.inks = undefined;
      this.weights = weightsOf(this.data, this.graph, this.facts, this.port);
      this.graphView.measures = null;
      this.drawn = null;
      this.layout();
      this.strip.fill();
      this.knockouts.forget();
      this.prediction.draw();
    } catch (error) {
      if (!this.closed && this.wanted === picture) this.fail(error);
    } finally {
      if (this.wanted === picture) this.busy(false);
    }
  }

  busy(waiting) {
    clearTimeout(this.patience);
    this.root.removeAttribute("data-waiting");
    if (waiting)
      this.patience = setTimeout(() => {
        this.root.dataset.waiting = "true";
        this.say("Waiting for the kernel. If it was restarted, run the cell again.");
      }, 1500);
  }

  fail(error) {
    this.failure = `This cannot be shown: ${error.message}`;
    this.say(this.failure);
  }

  changed(key) {
    if (key === "picture") {
      if (this.state("picture") !== this.wanted) this.show(this.state("picture"));
      return;
    }
    if (this.pendingDraw) return;
    this.pendingDraw = true; // several changes of one event are drawn once, before the browser paints
    queueMicrotask(() => {
      this.pendingDraw = false;
      this.draw();
    });
  }

  draw() {
    if (!this.data || !this.laid || this.closed) return;
    const vertex = this.selected;
    if (vertex === null) return;
    this.controls.draw();
    if (this.state("view") === "graph") this.graphView.draw();
    else {
      const needed = [vertex, ...this.state("pins").map((pin) => this.graph.vertex(pin))].find((other) => !this.weights.ready(other));
      if (needed !== undefined) return this.fetchVertex(needed);
      if (this.state("relevance")) this.relevanceView.draw(vertex);
      else this.patchView.draw(vertex);
    }
    this.overlay.draw();
    this.soon();
  }

  async fetchVertex(vertex) {
    this.busy(true);
    try {
      await this.weights.load(vertex);
      if (!this.closed) this.draw();
    } catch (error) {
      this.fail(error);
    } finally {
      this.busy(false);
    }
  }

  /** What may come a frame later: the navigator, the side panel, the text that is read aloud. */
  soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.closed || !this.data) return;
      this.navigator.draw();
      this.states.draw();
      this.mass.draw();
      this.dots.draw();
      this.knockouts.draw();
      this.values.draw();
      clearTimeout(this.reading);
      this.reading = setTimeout(() => (this.live.textContent = this.sentence.textContent), 500);
    });
  }

  /** Parts of a sentence, [text, backbone]: the names of backbones in their colours. */
  inColour(parts) {
    return parts.map(([text, backbone]) => (backbone === null ? text : h("b", { style: `color: var(--text-${backbone})`, title: text }, short(text, 28))));
  }

  write(parts) {
    this.sentence.replaceChildren(...this.inColour(parts));
  }

  /** A message in the place of the sentence, read aloud at once. */
  say(message) {
    this.write([[message, null]]);
    this.live.textContent = message;
  }

  /** Redraws what depends on the patch under the pointer alone. */
  pointed() {
    if (!this.data || !this.drawn) return;
    this.overlay.draw();
    this.legend.draw();
    this.soon();
  }
}
