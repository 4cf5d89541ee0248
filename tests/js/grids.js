/** Grids to draw outlines and masks of, for tests. */

export const SIZE = 24;

export function grid(height, width, value) {
  const values = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) values[y * width + x] = value(x, y);
  }
  return { values, height, width };
}

export const disc = (radius) =>
  grid(SIZE, SIZE, (x, y) => radius - Math.hypot(x + 0.5 - SIZE / 2, y + 0.5 - SIZE / 2));
