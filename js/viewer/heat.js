/** Turns values into colours. */

/**
 * Colours a grid as `bayesdiff_core/render/heatmap.py` does: over an image the heat is transparent
 * at the lower limit and opaque at the upper one.
 * @param {import("./upsample.js").Grid} grid
 * @param {[number, number]} limits values with the first and the last colour
 * @param {Uint8Array} colors 256 RGB triples
 * @param {boolean} opaque for heat without an image
 * @returns {Uint8ClampedArray} RGBA, row by row
 */
export function paintHeat({ values }, [low, high], colors, opaque) {
  const span = high - low;
  const palette = rgbaPalette(colors, opaque);
  const pixels = new Uint32Array(values.length);
  const factor = span > 1e-6 * Math.max(Math.abs(low), Math.abs(high)) ? STEPS / span : 0;
  for (let index = 0; index < values.length; index++) {
    const level = (values[index] - low) * factor;
    pixels[index] = palette[level <= 0 ? 0 : level >= STEPS ? STEPS : Math.round(level)];
  }
  return new Uint8ClampedArray(pixels.buffer);
}

/**
 * A colour of a colormap as CSS.
 * @param {Uint8Array} colors 256 RGB triples
 * @param {number} level in [0, 1], clamped outside
 * @returns {string}
 */
export function cssColor(colors, level) {
  const index = 3 * Math.round(255 * Math.min(Math.max(level, 0), 1));
  return `rgb(${colors[index]} ${colors[index + 1]} ${colors[index + 2]})`;
}

const STEPS = 1023;
const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

function rgbaPalette(colors, opaque) {
  const bytes = new Uint8Array(4 * (STEPS + 1));
  for (let step = 0; step <= STEPS; step++) {
    const place = (255 * step) / STEPS;
    const below = Math.min(Math.floor(place), 254);
    for (let channel = 0; channel < 3; channel++) {
      const [first, second] = [colors[3 * below + channel], colors[3 * below + 3 + channel]];
      bytes[4 * step + channel] = Math.round(first + (second - first) * (place - below));
    }
    bytes[4 * step + 3] = opaque ? 255 : Math.round((255 * step) / STEPS);
  }
  // The canvas takes the bytes in this order, on machines of either byte order.
  return LITTLE_ENDIAN ? new Uint32Array(bytes.buffer) : swapped(bytes);
}

function swapped(bytes) {
  const view = new DataView(bytes.buffer);
  return Uint32Array.from({ length: bytes.length / 4 }, (_, index) => view.getUint32(4 * index));
}
