// What is drawn on canvases in more than one place.

/** The colours of a map, from left to right. */
export function gradient(context, map, left, top, width, height) {
  const fill = context.createLinearGradient(left, 0, left + width, 0);
  for (let stop = 0; stop <= 32; stop++) {
    const index = Math.round((stop / 32) * 255);
    fill.addColorStop(stop / 32, `rgb(${map[3 * index]}, ${map[3 * index + 1]}, ${map[3 * index + 2]})`);
  }
  context.fillStyle = fill;
  context.fillRect(left, top, width, height);
}

/** A mark on a colour bar: below it, or above it where the size is negative. */
export function triangle(context, x, y, size, ink) {
  context.fillStyle = ink;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x - Math.abs(size) * 0.7, y + size);
  context.lineTo(x + Math.abs(size) * 0.7, y + size);
  context.fill();
}
