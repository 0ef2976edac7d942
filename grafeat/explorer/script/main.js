// The attention explorer. No dependency: JupyterLab loads it through anywidget, an exported page holds it inline. It
// draws from a "port": the state (shared with Python, if there is a kernel) and the data of each picture.

import { Explorer } from "./explorer.js";
import { livePort, pagePort } from "./port.js";

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const explorer = new Explorer(livePort(model), root);
    hideTwin(model.get("_twin"));
    return () => explorer.close();
  },
};

/** The still picture that stands in where there is no kernel is not needed beside the living one. */
function hideTwin(name) {
  for (const twin of document.querySelectorAll(`[data-grafeat-twin="${name}"]`)) (twin.closest(".jp-OutputArea-child") ?? twin).style.display = "none";
}

/** Opens every explorer of an exported page. */
export function openPage() {
  for (const root of document.querySelectorAll("[data-grafeat-page]")) {
    const port = pagePort(root);
    const place = document.createElement("div");
    root.append(place);
    root.explorer = new Explorer(port, place);
  }
}
