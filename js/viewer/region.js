/** From a map and a threshold to the region that would be sampled again: grown, cleaned. */

/** @typedef {import("./grid.js").Grid} Grid */

const FAR = 1e9;

/**
 * A grid whose zero line is the outline of the region; positive inside.
 * @param {Grid} grid
 * @param {number} threshold
 * @param {number} growth distance, in pixels of the grid
 * @param {number} smallest area of a region that stays, in pixels of the grid
 * @returns {Grid}
 */
export function region(grid, threshold, growth = 0, smallest = 0) {
  const { values, height, width } = grid;
  if (!growth && smallest <= 1) {
    return { values: values.map((value) => value - threshold), height, width };
  }
  const inside = Uint8Array.from(values, (value) => (value > threshold ? 1 : 0));
  if (smallest > 1) dropSmall(inside, height, width, smallest);
  const bare = values.map((value, index) => {
    const above = value - threshold;
    return above > 0 && !inside[index] ? -above : above;
  });
  if (!growth) return { values: bare, height, width };
  const target = growth > 0 ? inside : inside.map((bit) => 1 - bit);
  const distances = distanceTo(target, height, width);
  const result = distances.map((distance) =>
    growth > 0 ? growth + 0.5 - distance : distance - 0.5 + growth,
  );
  return { values: result, height, width };
}

/**
 * Euclidean distance of every pixel to the nearest one that is set (Felzenszwalb and
 * Huttenlocher, "Distance Transforms of Sampled Functions", 2012).
 * @param {Uint8Array} set
 */
export function distanceTo(set, height, width) {
  const squared = Float64Array.from(set, (bit) => (bit ? 0 : FAR));
  const line = new LowerEnvelope(Math.max(height, width));
  for (let x = 0; x < width; x++) line.transform(squared, x, width, height);
  for (let y = 0; y < height; y++) line.transform(squared, y * width, 1, width);
  return Float32Array.from(squared, Math.sqrt);
}

/** The lower envelope of parabolas, on one row or column at a time. */
class LowerEnvelope {
  constructor(longest) {
    this.input = new Float64Array(longest);
    this.vertex = new Int32Array(longest);
    this.start = new Float64Array(longest + 1);
  }

  transform(data, offset, stride, count) {
    const { input, vertex, start } = this;
    for (let i = 0; i < count; i++) input[i] = data[offset + i * stride];
    let last = 0;
    vertex[0] = 0;
    start[0] = -Infinity;
    start[1] = Infinity;
    for (let i = 1; i < count; i++) {
      let meets = crossing(input, i, vertex[last]);
      while (meets <= start[last]) meets = crossing(input, i, vertex[--last]);
      vertex[++last] = i;
      start[last] = meets;
      start[last + 1] = Infinity;
    }
    for (let i = 0, k = 0; i < count; i++) {
      while (start[k + 1] < i) k++;
      data[offset + i * stride] = (i - vertex[k]) ** 2 + input[vertex[k]];
    }
  }
}

function crossing(input, i, j) {
  return (input[i] + i * i - input[j] - j * j) / (2 * (i - j));
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
