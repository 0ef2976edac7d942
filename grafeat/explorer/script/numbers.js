// Numbers without units.

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export const sum = (values) => values.reduce((total, value) => total + value, 0);

/** The numbers of the k largest values, largest first; MISSING and NaN are left out. */
export function strongest(values, k, eligible = () => true) {
  const found = [];
  for (let j = 0; j < values.length; j++) {
    const value = values[j];
    if (!(value > 0) || !eligible(j)) continue;
    if (found.length === k && value <= values[found[k - 1]]) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]] < value) at--;
    found.splice(at, 0, j);
    if (found.length > k) found.pop();
  }
  return found;
}

/** Entropy of a share of mass, as the number of patches that an even split would need. */
export function effective(weights) {
  if (weights.some(Number.isNaN)) return NaN;
  const total = sum(weights);
  if (!total) return 0;
  const entropy = sum(weights.filter((weight) => weight > 0).map((weight) => -(weight / total) * Math.log(weight / total)));
  return Math.exp(entropy);
}

/** Probabilities out of logits. */
export function softmax(logits) {
  const most = Math.max(...logits);
  const raised = Array.from(logits, (logit) => Math.exp(logit - most));
  const total = sum(raised);
  return raised.map((value) => value / total);
}

/** The next of 1, 2, 5, 10, … and of 0.1, 0.2, 0.5: an end of a scale that one can read. */
export function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * (1 - 1e-9));
}
