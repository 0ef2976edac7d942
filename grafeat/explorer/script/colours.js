// Colour maps.

/** 256 colours out of hexadecimal text. */
export function colourMap(text) {
  const map = new Uint8Array(768);
  for (let i = 0; i < 768; i++) map[i] = parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return map;
}

export const luminance = (map, index) => 0.299 * map[3 * index] + 0.587 * map[3 * index + 1] + 0.114 * map[3 * index + 2];
