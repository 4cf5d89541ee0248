import assert from "node:assert/strict";
import test from "node:test";

import { signedMask } from "../../js/viewer/mask.js";
import { outline } from "../../js/viewer/outline.js";
import { SIZE, disc, grid } from "./grids.js";

/** The lengths of all sides of all rings, the closing one included. */
function sides(rings) {
  return rings.flatMap((ring) =>
    Array.from({ length: ring.length / 2 }, (_, i) => {
      const [x, y, nextX, nextY] = [0, 1, 2, 3].map((j) => ring[(2 * i + j) % ring.length]);
      return Math.hypot(nextX - x, nextY - y);
    }),
  );
}

const perimeter = (rings) => sides(rings).reduce((sum, side) => sum + side, 0);

/** No ring jumps: from each point to the next, and from the last to the first, it is a cell. */
function assertClosed(rings, size = SIZE) {
  assert.ok(rings.length > 0);
  for (const side of sides(rings)) assert.ok(side <= Math.SQRT2 / size + 1e-6, `${side}`);
}

/** Twice the area, negative where the inside is on the left of a ring. */
function area(ring) {
  let twice = 0;
  for (let i = 0; i < ring.length; i += 2) {
    const [x, y, nextX, nextY] = [0, 1, 2, 3].map((j) => ring[(i + j) % ring.length]);
    twice += x * nextY - nextX * y;
  }
  return twice / 2;
}

test("the outline of a disc is closed and as long as its circle", () => {
  const rings = outline(disc(8));
  assertClosed(rings);
  assert.equal(rings.length, 1);
  const expected = (2 * Math.PI * 8) / SIZE;
  assert.ok(Math.abs(perimeter(rings) - expected) < 0.02 * expected);
});

test("a region at the border is closed along it", () => {
  const rings = outline(grid(4, 6, () => 1));
  assertClosed(rings, 4);
  assert.ok(Math.abs(perimeter(rings) - 4) < 0.5);
});

test("nothing inside has no outline", () => {
  assert.equal(outline(grid(4, 4, () => -1)).length, 0);
});

test("saddles stay closed", () => {
  for (const shift of [-0.05, 0.05]) {
    const wave = grid(12, 12, (x, y) => Math.sin(1.3 * x) * Math.sin(1.1 * y) + shift);
    assertClosed(outline(wave), 12);
  }
});

test("a hole is a ring of its own, and what is inside lies on the same hand of both", () => {
  const rings = outline(grid(SIZE, SIZE, (x, y) => 3 - Math.abs(7 - Math.hypot(x - 12, y - 12))));
  assertClosed(rings);
  const areas = rings.map(area).sort((a, b) => a - b);
  const known = [-Math.PI * 100, Math.PI * 16].map((pixels) => pixels / SIZE ** 2);
  assert.equal(areas.length, 2);
  for (const [i, value] of areas.entries()) {
    assert.ok(Math.abs(value - known[i]) < 0.05 * Math.abs(known[i]), `${value}, not ${known[i]}`);
  }
});

test("everything far inside or far outside grows and shrinks without an edge", () => {
  const full = grid(SIZE, SIZE, () => 1);
  assert.equal(outline(signedMask(full, 0, -3)).length, 1);
  assert.equal(outline(signedMask(full, 2, 3)).length, 0);
});
