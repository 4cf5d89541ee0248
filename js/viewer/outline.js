/**
 * The line where a grid is zero, by marching squares. A region that touches the border of the
 * image is closed along it.
 *
 * @param {import("./grid.js").Grid} grid positive inside
 * @returns {Float32Array} segments x1, y1, x2, y2 one after another, in [0, 1] of the image
 */
export function outline({ values, height, width }) {
  const segments = [];
  const [top, right, bottom, left] = [[0, 0], [0, 0], [0, 0], [0, 0]];
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const a = at(values, height, width, x, y);
      const b = at(values, height, width, x + 1, y);
      const c = at(values, height, width, x + 1, y + 1);
      const d = at(values, height, width, x, y + 1);
      const kind = (a > 0 ? 8 : 0) | (b > 0 ? 4 : 0) | (c > 0 ? 2 : 0) | (d > 0 ? 1 : 0);
      if (kind === 0 || kind === 15) continue;
      cross(top, x, y, a, 1, 0, b);
      cross(right, x + 1, y, b, 0, 1, c);
      cross(bottom, x, y + 1, d, 1, 0, c);
      cross(left, x, y, a, 0, 1, d);
      for (const [from, to] of lines(kind, a + b + c + d > 0, top, right, bottom, left)) {
        segments.push(place(from[0], width), place(from[1], height));
        segments.push(place(to[0], width), place(to[1], height));
      }
    }
  }
  return Float32Array.from(segments);
}

/** Outside of the image lies nothing: a region ends halfway to the pixel that is not there. */
function at(values, height, width, x, y) {
  return x < 0 || y < 0 || x >= width || y >= height ? -Infinity : values[y * width + x];
}

function cross(point, x, y, value, dx, dy, next) {
  const finite = Number.isFinite(value) && Number.isFinite(next);
  const share = finite ? value / (value - next) : 0.5;
  point[0] = x + dx * share;
  point[1] = y + dy * share;
}

function place(coordinate, size) {
  return Math.min(Math.max((coordinate + 0.5) / size, 0), 1);
}

/** The lines through a cell by which of its corners lie inside; a saddle is split by its middle. */
function lines(kind, joined, top, right, bottom, left) {
  switch (kind) {
    case 1:
    case 14:
      return [[left, bottom]];
    case 2:
    case 13:
      return [[bottom, right]];
    case 3:
    case 12:
      return [[left, right]];
    case 4:
    case 11:
      return [[top, right]];
    case 6:
    case 9:
      return [[top, bottom]];
    case 7:
    case 8:
      return [[left, top]];
    case 5:
      return joined ? [[left, top], [bottom, right]] : [[left, bottom], [top, right]];
    default:
      return joined ? [[left, bottom], [top, right]] : [[left, top], [bottom, right]];
  }
}
