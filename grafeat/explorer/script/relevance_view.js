// The view of one picture's relevance: how much each patch speaks for a class, by one method.

import { Asked, instead } from "./asked.js";
import { h } from "./elements.js";
import { clamp, sum } from "./numbers.js";
import { UNKNOWN } from "./panel.js";
import { Part } from "./part.js";
import { capital, number, percent, signed } from "./words.js";

const LOGIT = "centred logit";
const SHOWN = 3; // patches that are marked

/** What each method's values are: its name, the unit, and in words, of a class. */
const METHODS = {
  attention_rollout: { name: "attention rollout", unit: "share of the routing", words: () => "Routing: attention multiplied through layers and readout, the same for every class. It says where information comes from, which may not matter." },
  gradient_rollout: { name: "gradient rollout", unit: "no unit", words: (said) => `Attention that raises the logit of ${said}, multiplied through layers and readout. It cannot say what speaks against ${said}.` },
  gradient_x_input: { name: "gradient × input", unit: LOGIT, words: (said) => `The gradient of the logit of ${said} times the patch's features.` },
  grad_cam: { name: "Grad-CAM", unit: LOGIT, words: (said) => `The gradient of the logit of ${said} times the patch's vertex state, where it is read.` },
  integrated_gradients: { name: "integrated gradients", unit: LOGIT, words: (said) => `Gradient times features, averaged on the way from the mean patch: values sum to what the logit of ${said} gains on it.` },
  gradient_shap: { name: "gradient SHAP", unit: LOGIT, words: (said) => `Gradient times features at random places on the way from the mean patch to this picture, for ${said}.` },
  feature_ablation: { name: "feature ablation", unit: LOGIT, words: (said) => `What the logit of ${said} loses if the patch becomes the mean patch.` },
  occlusion: { name: "occlusion", unit: LOGIT, words: (said) => `What the logit of ${said} loses if a window of 3 × 3 patches becomes mean patches, averaged over the windows that hold the patch.` },
  shapley: { name: "Shapley values", unit: LOGIT, words: (said) => `The Shapley value of the patch's cell for the logit of ${said}, shared out evenly among its patches.` },
  ablation: { name: "knocking out", unit: LOGIT, words: (said) => `What the logit of ${said} loses if nothing attends to the patch and the readout does not read it.` },
};

/** What the grids show by a method, in words: routing is not called relevance. */
export const named = (method) => `${method === "attention_rollout" ? "routing" : "relevance"} by ${METHODS[method].name}`;

export class RelevanceView extends Part {
  constructor(explorer) {
    super(explorer);
    this.asked = new Asked(() => explorer.draw());
  }

  /** The relevance that was chosen; while it comes, and where it is not to be had, attention stays. */
  draw(vertex) {
    const [method, target] = [this.state("relevance"), this.state("target")];
    const found = this.asked.get(JSON.stringify([this.data.number, method, target]), () => this.port.relevance(this.data, method, target));
    if (found.value) return this.drawValues(vertex, method, found.value);
    this.explorer.patchView.draw(vertex);
    this.explorer.write([[`${capital(named(method))}: ${instead(found)}${found.waiting ? "" : " The grids show attention."}`, null]]);
  }

  drawValues(vertex, method, { values, signed: twoSided, target }) {
    const most = values.reduce((high, value) => Math.max(high, Math.abs(value) || 0), 0) || 1;
    const order = [...values.keys()].sort((a, b) => values[b] - values[a]);
    const limits = [twoSided ? -most : 0, most];
    const strongest = order.slice(0, SHOWN).filter((j) => values[j] > 0);
    this.explorer.drawn = { vertex, values: this.readings.values(vertex), shown: values, signed: twoSided, limits: [limits, limits], method, strongest, unit: METHODS[method].unit };
    const map = twoSided ? this.maps.diverging : this.maps.sequential;
    const [low, high] = limits;
    for (const panel of this.panels) {
      panel.draw((j) => (Number.isNaN(values[j]) ? UNKNOWN : Math.round(255 * clamp((values[j] - low) / (high - low), 0, 1))), map);
      panel.note.textContent = this.summed(panel.number, values, twoSided);
      panel.fit();
    }
    this.say(vertex, method, values, strongest, target, twoSided);
    this.explorer.legend.draw();
    this.explorer.legend.caption.replaceChildren(h("b", {}, `${capital(named(method))}. `), METHODS[method].words(`'${this.facts.classes[target]}'`), this.facts.trained ? "" : " The model was never trained.");
  }

  /** A backbone's patches together: their sum in the unit, or their share where there is none. */
  summed(backbone, values, twoSided) {
    const { start, stop } = this.graph.slices[backbone];
    const own = sum(Array.from(values.subarray(start, stop)));
    return twoSided ? `sum ${signed(own)}` : `${percent(own / sum(Array.from(values)))} of the sum`;
  }

  say(vertex, method, values, strongest, target, twoSided) {
    const said = (value) => (twoSided && value > 0 ? `+${number(value)}` : number(value));
    const place = (other) => {
      const [name, row, column] = this.graph.place(other);
      return [[name, this.graph.backboneOf[other]], [` (${row}, ${column})`, null]];
    };
    const [[name, backbone], [where]] = place(vertex);
    const what = method === "attention_rollout" ? "routing" : `relevance for '${this.facts.classes[target]}'`;
    const parts = [[name, backbone], [` patch${where} · ${what} ${said(values[vertex])}`, null]];
    for (const [rank, other] of strongest.entries()) parts.push([rank ? ", " : " · strongest: ", null], ...place(other), [` ${said(values[other])}`, null]);
    this.explorer.write(parts);
  }
}
