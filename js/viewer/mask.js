/**
 * Computes the mask of a map: threshold, minimum area, growth, in this order. Decides for every
 * pixel as `bayesdiff_core/segments.py` does.
 */

/** @typedef {import("./upsample.js").Grid} Grid */

/** Value of a pixel that is inside by nothing: its distance is the growth itself. */
const BARELY_INSIDE = 1e-6;

/**
 * The mask as a signed grid: positive inside, zero along its outline.
 * @param {Grid} grid a map
 * @param {number} threshold value above which a pixel belongs to the mask
 * @param {number} growth distance, in pixels of the grid; negative shrinks
 * @param {number} smallest area of a region that stays, in pixels of the grid
 * @param {number} imagePixels width of a pixel of the grid, in pixels of the image
 * @returns {Grid}
 */
export function signedMask(
  { values, height, width },
  threshold,
  growth = 0,
  smallest = 0,
  imagePixels = 1,
) {
  // The server compares in single precision: a pixel that equals the threshold is not above it.
  const limit = Math.fround(threshold);
  const above = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) above[i] = values[i] - limit;
  if (!growth && smallest <= 1) return { values: above, height, width };
  const inside = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) inside[i] = above[i] > 0 ? 1 : 0;
  if (smallest > 1) dropSmall(inside, height, width, smallest);
  if (!growth) {
    for (let i = 0; i < values.length; i++) {
      if (above[i] > 0 && !inside[i]) above[i] = -above[i];
    }
    return { values: above, height, width };
  }
  return { values: moveBorder(inside, height, width, growth, imagePixels), height, width };
}

/** Moves the border of the pixels inside by a distance; returns the signed values of the result. */
function moveBorder(inside, height, width, growth, imagePixels) {
  const shrinks = growth < 0;
  if (shrinks) for (let i = 0; i < inside.length; i++) inside[i] = 1 - inside[i];
  const result = distanceTo(inside, height, width);
  // The server measures from the outermost pixel of the image within the pixel of the grid.
  const nearer = Math.max(0, 0.5 - 0.5 / imagePixels);
  const reach = Math.fround(Math.abs(growth) + nearer);
  for (let i = 0; i < result.length; i++) {
    result[i] = shrinks ? result[i] - reach : reach - result[i] || BARELY_INSIDE;
  }
  return result;
}

/**
 * The Euclidean distance of every pixel to the nearest one that is set, infinite where none is:
 * first along the columns, then by the lower envelope of parabolas along the rows (Meijster et
 * al., "A General Algorithm for Computing Distance Transforms in Linear Time", 2000).
 * @param {Uint8Array} set 1 or 0, row by row
 * @param {number} height
 * @param {number} width
 * @returns {Float32Array} in pixels, row by row
 */
export function distanceTo(set, height, width) {
  const distances = alongColumns(set, height, width);
  const line = new LowerEnvelope(width);
  for (let start = 0; start < distances.length; start += width) {
    line.transform(distances.subarray(start, start + width));
  }
  return distances;
}

function alongColumns(set, height, width) {
  const distances = new Float32Array(set.length);
  const { length } = set;
  for (let i = 0; i < length; i++) {
    distances[i] = set[i] ? 0 : i < width ? Infinity : distances[i - width] + 1;
  }
  for (let i = length - width - 1; i >= 0; i--) {
    const below = distances[i + width] + 1;
    if (below < distances[i]) distances[i] = below;
  }
  return distances;
}

/** The lower envelope of the parabolas over one row. */
class LowerEnvelope {
  constructor(width) {
    this.vertex = new Int32Array(width);
    this.height = new Float64Array(width);
    this.start = new Float64Array(width + 1);
  }

  /** Turns distances along the columns into distances in the plane, in place. */
  transform(row) {
    const { vertex, height, start } = this;
    let count = 0;
    for (let x = 0; x < row.length; x++) {
      if (row[x] === Infinity) continue;
      const own = row[x] * row[x];
      let meets = -Infinity;
      while (count) {
        const last = vertex[count - 1];
        meets = (own + x * x - height[count - 1] - last * last) / (2 * (x - last));
        if (meets > start[count - 1]) break;
        meets = -Infinity;
        count--;
      }
      vertex[count] = x;
      height[count] = own;
      start[count++] = meets;
    }
    if (!count) return;
    start[count] = Infinity;
    for (let x = 0, k = 0; x < row.length; x++) {
      while (start[k + 1] < x) k++;
      const aside = x - vertex[k];
      row[x] = aside ? Math.sqrt(aside * aside + height[k]) : Math.sqrt(height[k]);
    }
  }
}

/** Clears the connected regions with fewer pixels than `smallest`; corners connect. */
function dropSmall(inside, height, width, smallest) {
  const seen = new Uint8Array(inside.length);
  const stack = [];
  for (let start = 0; start < inside.length; start++) {
    if (!inside[start] || seen[start]) continue;
    const found = [];
    seen[start] = 1;
    stack.push(start);
    while (stack.length) {
      const index = stack.pop();
      found.push(index);
      const [x, y] = [index % width, Math.floor(index / width)];
      for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row++) {
        for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column++) {
          const next = row * width + column;
          if (inside[next] && !seen[next]) {
            seen[next] = 1;
            stack.push(next);
          }
        }
      }
    }
    if (found.length < smallest) for (const index of found) inside[index] = 0;
  }
}
