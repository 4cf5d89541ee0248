/**
 * Traces the line where a grid is zero, by marching squares. A region that touches the border of
 * the image is closed along it.
 *
 * Each cell between four pixels is crossed by lines from one of its sides to another, directed so
 * that the inside is on their left; following them from cell to cell gives closed rings.
 */

const [TOP, RIGHT, BOTTOM, LEFT] = [0, 1, 2, 3];

/** From and to, by which corners lie inside: 8 upper left, 4 upper right, 2 lower right, 1 lower left. */
const LINES = [
  [],
  [BOTTOM, LEFT],
  [RIGHT, BOTTOM],
  [RIGHT, LEFT],
  [TOP, RIGHT],
  [TOP, RIGHT, BOTTOM, LEFT],
  [TOP, BOTTOM],
  [TOP, LEFT],
  [LEFT, TOP],
  [BOTTOM, TOP],
  [LEFT, TOP, RIGHT, BOTTOM],
  [RIGHT, TOP],
  [LEFT, RIGHT],
  [BOTTOM, RIGHT],
  [LEFT, BOTTOM],
  [],
];

/** Saddles whose middle lies inside. */
const JOINED = { 5: [TOP, LEFT, BOTTOM, RIGHT], 10: [RIGHT, TOP, LEFT, BOTTOM] };

/**
 * The outline of the positive part of a grid.
 * @param {import("./upsample.js").Grid} grid positive inside
 * @returns {Float32Array[]} rings of points x, y, in [0, 1] of the image
 */
export function outline(grid) {
  const next = crossings(grid);
  const rings = [];
  for (const [start] of next) {
    if (!next.has(start)) continue;
    const points = [];
    for (let side = start; next.has(side); ) {
      pushPoint(points, side, grid);
      const following = next.get(side);
      next.delete(side);
      side = following;
    }
    rings.push(Float32Array.from(points));
  }
  return rings;
}

/** Maps each side of a cell that the outline crosses to the side that it crosses next. */
function crossings(grid) {
  const { values, height, width } = grid;
  const next = new Map();
  for (let y = -1; y < height; y++) {
    let left = insideOf(values, height, width, -1, y);
    for (let x = -1; x < width; x++) {
      const right = insideOf(values, height, width, x + 1, y);
      const kind = ((left & 1) << 3) | ((right & 1) << 2) | (right & 2) | (left >> 1);
      left = right;
      if (kind === 0 || kind === 15) continue;
      const joined = (kind === 5 || kind === 10) && middle(values, width, x, y) > 0;
      const lines = joined ? JOINED[kind] : LINES[kind];
      for (let i = 0; i < lines.length; i += 2) {
        next.set(sideOf(lines[i], x, y, width), sideOf(lines[i + 1], x, y, width));
      }
    }
  }
  return next;
}

/** Which of a pixel (1) and the one below it (2) are inside, as bits; beyond the image none is. */
function insideOf(values, height, width, x, y) {
  if (x < 0 || x >= width) return 0;
  const upper = y >= 0 && values[y * width + x] > 0 ? 1 : 0;
  return y + 1 < height && values[(y + 1) * width + x] > 0 ? upper | 2 : upper;
}

/** Four times the value in the middle of a saddle, whose corners are all in the image. */
function middle(values, width, x, y) {
  const place = y * width + x;
  return values[place] + values[place + 1] + values[place + width] + values[place + width + 1];
}

/** A number for the line between two neighbouring pixels: even across, odd down. */
function sideOf(side, x, y, width) {
  const column = side === RIGHT ? x + 2 : x + 1;
  const row = side === BOTTOM ? y + 2 : y + 1;
  return 2 * (row * (width + 2) + column) + (side === LEFT || side === RIGHT ? 1 : 0);
}

/** Appends the point where the outline crosses a side. */
function pushPoint(points, side, { values, height, width }) {
  const pixel = side >> 1;
  const [x, y] = [(pixel % (width + 2)) - 1, Math.floor(pixel / (width + 2)) - 1];
  const [dx, dy] = side & 1 ? [0, 1] : [1, 0];
  const [value, other] = [
    at(values, height, width, x, y),
    at(values, height, width, x + dx, y + dy),
  ];
  const finite = Number.isFinite(value) && Number.isFinite(other);
  // A region ends halfway to a pixel that is not there.
  const share = finite ? value / (value - other) : 0.5;
  points.push(place(x + dx * share, width), place(y + dy * share, height));
}

function at(values, height, width, x, y) {
  return x < 0 || y < 0 || x >= width || y >= height ? -Infinity : values[y * width + x];
}

function place(coordinate, size) {
  return Math.min(Math.max((coordinate + 0.5) / size, 0), 1);
}
