// Bytes as they come from the kernel or lie in the page.

const TYPES = { uint8: Uint8Array, uint16: Uint16Array, int16: Int16Array, float32: Float32Array };

export function aligned(view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return view.byteOffset % 8 ? bytes.slice().buffer : view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

export function bytesOf(base64) {
  const text = atob(base64.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

export function arraysOf(places, buffer) {
  const arrays = {};
  for (const [name, [type, shape, offset]] of Object.entries(places)) {
    const size = shape.reduce((product, length) => product * length, 1);
    arrays[name] = new TYPES[type](buffer, offset, size);
  }
  return arrays;
}

/** What an encoded picture is, by its first byte. */
export const typeOf = (bytes) => (bytes[0] === 0x89 ? "image/png" : "image/webp");
