// Numbers and names in words.

export function percent(share) {
  if (Number.isNaN(share)) return "NaN";
  const digits = share > 0 && share < 0.0995 ? 1 : 0;
  return `${(100 * share).toFixed(digits)}%`;
}

export function number(value) {
  if (Number.isNaN(value)) return "NaN";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 0.001 ? value.toPrecision(size >= 1 ? 3 : 2) : value.toExponential(0);
  return String(Number(text)).replace("-", "−");
}

export const times = (value) => `${value >= 10 ? value.toFixed(0) : value.toFixed(1)}×`;

export const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** The middle of a long name left out. */
export function short(name, length = 24) {
  return name.length <= length ? name : `${name.slice(0, Math.ceil(length / 2) - 1)}…${name.slice(1 - Math.floor(length / 2))}`;
}

/** A number with its sign and two decimals. */
export function signed(value) {
  if (Number.isNaN(value)) return "NaN";
  const text = Math.abs(value).toFixed(Math.abs(value) < 99.95 ? 2 : 0);
  return Number(text) === 0 ? "0.00" : `${value < 0 ? "−" : "+"}${text}`;
}
