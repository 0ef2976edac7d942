// Where state and data come from: a kernel, or the page itself.

import { aligned, arraysOf, bytesOf, inflated } from "./bytes.js";
import { same } from "./numbers.js";

/** The port of a live notebook: state and data come from the kernel. */
export function livePort(model) {
  const view = Math.random().toString(36).slice(2);
  const waiting = new Map();
  let count = 0;
  let saving = false;
  const answer = (message, buffers) => {
    const asked = waiting.get(message.id);
    if (!asked) return;
    waiting.delete(message.id);
    if (message.error) asked.reject(new Error(message.error));
    else asked.resolve({ ...message, buffer: buffers.length ? aligned(buffers[0]) : null });
  };
  model.on("msg:custom", answer);
  const ask = (what) =>
    new Promise((resolve, reject) => {
      const id = `${view}-${count++}`;
      waiting.set(id, { resolve, reject });
      model.send({ ...what, id });
    });
  return {
    live: true,
    facts: model.get("_facts"),
    get: (key) => model.get(key),
    set(key, value) {
      model.set(key, value);
      if (saving) return;
      saving = true;
      requestAnimationFrame(() => {
        saving = false;
        model.save_changes();
      });
    },
    on(key, listener) {
      model.on(`change:${key}`, listener);
      return () => model.off(`change:${key}`, listener);
    },
    picture: (number) => ask({ ask: "picture", number }),
    vertex: (number, vertex) => ask({ ask: "vertex", number, vertex }),
    graph: (number, layer, head) => ask({ ask: "graph", number, layer, head }),
    thumbnails: (numbers) => ask({ ask: "thumbnails", numbers }),
    effect: ({ number }, knocked) => ask({ ask: "effect", number, knocked }).then((found) => readOut(found, "after")),
    relevance: ({ number }, method, target) => ask({ ask: "relevance", number, method, target }).then((found) => readOut(found, "relevance")),
    values: ({ number }) => ask({ ask: "values", number }).then((found) => readOut(found, "values")),
    close: () => model.off("msg:custom", answer),
  };
}

/** The port of an exported page: everything is in the page. */
export function pagePort(root) {
  const { facts, state, pictures, thumbnails } = JSON.parse(root.querySelector(".grafeat-facts").textContent);
  const listeners = new Map();
  const data = async (number) => {
    const script = root.querySelector(`script[data-picture="${number}"]`);
    return { ...pictures[number], buffer: await inflated(bytesOf(script.textContent)) };
  };
  let first = data(state.picture); // unpacked while the page is built
  return {
    live: false,
    facts: { ...facts, shown: Object.keys(pictures).map(Number) },
    get: (key) => state[key],
    set(key, value) {
      state[key] = value;
      for (const listener of listeners.get(key) ?? []) listener();
    },
    on(key, listener) {
      listeners.set(key, [...(listeners.get(key) ?? []), listener]);
      return () => listeners.set(key, listeners.get(key).filter((other) => other !== listener));
    },
    picture(number) {
      const found = first && number === state.picture ? first : data(number);
      first = null;
      return found;
    },
    vertex: () => Promise.reject(new Error("this page holds no more than it shows")),
    graph: () => Promise.resolve(null),
    thumbnails: (numbers) => Promise.resolve({ thumbnails: numbers.map((number) => thumbnails[number]) }),
    async effect({ arrays, knocked = [] }, wanted) {
      const at = knocked.findIndex((one) => same(one, wanted));
      const count = arrays.logits.length;
      return at < 0 ? null : { values: arrays.without.subarray(at * count, (at + 1) * count) };
    },
    async relevance({ arrays, relevance = {} }, method, target) {
      const asked = [`${method} ${target ?? "predicted"}`, `${method} predicted`];
      const name = asked.find((one) => relevance[one] && (target === null || relevance[one].target === target));
      return name ? { ...relevance[name], values: arrays[name] } : null;
    },
    values: async ({ arrays }) => (arrays.values ? { values: arrays.values } : null),
    close() {},
  };
}

/** The one array of an answer, beside what the answer says. */
function readOut({ places, buffer, ...said }, name) {
  return { ...said, values: arraysOf(places, buffer)[name] };
}
