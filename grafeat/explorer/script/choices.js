// What can be chosen, and by which keys.

export const MOST = 64; // edges of a kind that can be drawn

/** What can be chosen by buttons of which one is pressed: values, and what the buttons say. */
export const CHOICES = {
  view: [["patch", "Patch"], ["graph", "Graph"]],
  direction: [["outgoing", "attends to"], ["incoming", "attended by"]],
  scale: [["row", "scale row"], ["head", "head"], ["shared", "shared"]],
  logarithmic: [[false, "linear"], [true, "log"]],
  paint: [["communities", "communities"], ["pagerank", "PageRank"]],
};

/** The attributes that Python and page share. */
export const STATE = ["picture", "layer", "head", "selected", "pins", "locked", "edges", "opacity", "outlines", "compare", "knocked", "relevance", "target", ...Object.keys(CHOICES)];

export const CONTROLS = STATE.filter((key) => key !== "selected");

export const KEYS = [
  ["← ↑ → ↓", "patch"], ["[ ]", "layer"], [", .", "head"], ["M", "mean of heads"], ["D", "direction"], ["P", "pin"],
  ["C", "compare"], ["− +", "edges"], ["S", "scale"], ["L", "log"], ["O", "picture only"], ["G", "graph"],
  ["K", "knock out"], ["R", "relevance"], ["Space", "play"], ["B N", "picture"], ["Enter", "lock"], ["Esc", "unlock, put back"],
];
