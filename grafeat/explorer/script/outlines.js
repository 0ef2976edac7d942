// The outlines of a picture, as ink that is laid over the heatmaps.

import { h } from "./elements.js";
import { clamp } from "./numbers.js";

const OUTLINED = 224; // longest side, in pixels, at which outlines are found

/** The outlines of a picture as two transparent canvases, one in white ink and one in black. */
export function outlinesOf(image) {
  const scale = OUTLINED / Math.max(image.width, image.height);
  const [width, height] = [image.width, image.height].map((side) => Math.max(8, Math.round(side * scale)));
  const grey = greyOf(image, width, height);
  const smooth = blurred(blurred(grey, width, height), width, height);
  const slope = new Float32Array(width * height);
  for (let y = 1; y < height - 1; y++)
    for (let x = 1; x < width - 1; x++) {
      const at = y * width + x;
      slope[at] = Math.hypot(smooth[at + 1] - smooth[at - 1], smooth[at + width] - smooth[at - width]);
    }
  const limit = Float32Array.from(slope).sort()[Math.floor(0.985 * slope.length)];
  const [white, black] = [255, 0].map((ink) => inked(slope, limit, ink, width, height));
  return { white, black };
}

function greyOf(image, width, height) {
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return Float32Array.from({ length: width * height }, (_, i) => 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
}

function blurred(values, width, height, radius = 2) {
  const along = (from, length, lines, step, stride) => {
    const to = new Float32Array(from.length);
    for (let line = 0; line < lines; line++)
      for (let i = 0; i < length; i++) {
        let total = 0;
        for (let o = -radius; o <= radius; o++) total += from[line * stride + clamp(i + o, 0, length - 1) * step];
        to[line * stride + i * step] = total / (2 * radius + 1);
      }
    return to;
  };
  return along(along(values, width, height, 1, width), height, width, width, 1);
}

function inked(slope, limit, ink, width, height) {
  const canvas = h("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < slope.length; i++) {
    const strength = limit > 0.02 ? Math.min(slope[i] / limit, 1) ** 1.5 : 0;
    image.data.set([ink, ink, ink, 0.42 * 255 * strength], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
