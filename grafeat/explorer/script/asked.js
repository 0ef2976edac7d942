// Answers that come later.

const MOST_KEPT = 64;
const AGAIN = 3000; // milliseconds after which a failure is asked about anew
const LATE = 4000; // milliseconds after which an answer may never come

/** What is said instead of an answer that has not come, or is not to be had. */
export function instead(found) {
  if (found.late) return "waiting for the kernel. If it was restarted, run the cell again.";
  return found.waiting ? "computing …" : (found.error ?? "not in this page; open the notebook.");
}

/** Asks once for each key, and keeps what came: `{ value }`, where null is not to be had, `{ error }` or `{ waiting }`. */
export class Asked {
  constructor(done) {
    Object.assign(this, { done, known: new Map() });
  }

  get(key, ask) {
    const found = this.known.get(key);
    if (found && !(found.error && Date.now() > found.until)) return found;
    const waiting = { waiting: true };
    this.known.set(key, waiting);
    if (this.known.size > MOST_KEPT) this.known.delete(this.known.keys().next().value);
    const came = (answer) => {
      if (!this.known.get(key)?.waiting) return;
      this.known.set(key, answer);
      this.done();
    };
    setTimeout(() => {
      if (this.known.get(key) !== waiting) return;
      this.known.set(key, { waiting: true, late: true });
      this.done();
    }, LATE);
    ask().then((value) => came({ value }), (error) => came({ error: error.message, until: Date.now() + AGAIN }));
    return waiting;
  }
}
