/**
 * Interpolates maps to the grid that heat and outline are drawn on: fine enough for smooth curves,
 * small enough to be computed again between two frames.
 *
 * @typedef {{values: Float32Array, height: number, width: number}} Grid values row by row
 */

const FINE = 256;
const REFINEMENT = 4;

/**
 * The size of the grid of a map: a whole multiple of the map, at most four times as large, and up
 * to 256 pixels unless the map itself is larger.
 * @param {number} height of the map, in its pixels, as `width`
 * @param {number} width
 * @returns {[number, number]} height and width of the grid
 */
export function gridSize(height, width) {
  const longest = Math.max(height, width);
  const factor = Math.max(1, Math.min(REFINEMENT, Math.floor(FINE / longest)));
  return [height * factor, width * factor];
}

/**
 * Interpolates a map bilinearly, with the same result as `bayesdiff_core/render/upsample.py`.
 * @param {Float32Array} values of the map, row by row
 * @param {number} height of the map, in its pixels, as `width`
 * @param {number} width
 * @returns {Grid} of the size that `gridSize` gives
 */
export function upsample(values, height, width) {
  const [rows, columns] = gridSize(height, width);
  if (rows === height) return { values, height, width };
  const [left, right, across] = neighbours(width, columns);
  const [upper, lower, down] = neighbours(height, rows);
  const result = new Float32Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    const [top, bottom, t] = [upper[y] * width, lower[y] * width, down[y]];
    for (let x = 0; x < columns; x++) {
      const [l, r, s] = [left[x], right[x], across[x]];
      const above = values[top + l] + (values[top + r] - values[top + l]) * s;
      const below = values[bottom + l] + (values[bottom + r] - values[bottom + l]) * s;
      result[y * columns + x] = above + (below - above) * t;
    }
  }
  return { values: result, height: rows, width: columns };
}

/** For each of `count` pixels the two of `size` pixels around it, and the share of the second. */
function neighbours(size, count) {
  const [first, second] = [new Int32Array(count), new Int32Array(count)];
  const share = new Float32Array(count);
  for (let index = 0; index < count; index++) {
    const place = Math.min(Math.max(((index + 0.5) * size) / count - 0.5, 0), size - 1);
    first[index] = Math.floor(place);
    second[index] = Math.min(first[index] + 1, size - 1);
    share[index] = place - first[index];
  }
  return [first, second, share];
}
