import assert from "node:assert/strict";
import test from "node:test";

import { gridSize, refine } from "../../js/viewer/grid.js";
import { outline } from "../../js/viewer/outline.js";
import { distanceTo, region } from "../../js/viewer/region.js";

const SIZE = 24;

function grid(height, width, value) {
  const values = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) values[y * width + x] = value(x, y);
  }
  return { values, height, width };
}

const disc = (radius) =>
  grid(SIZE, SIZE, (x, y) => radius - Math.hypot(x + 0.5 - SIZE / 2, y + 0.5 - SIZE / 2));

function perimeter(segments) {
  let length = 0;
  for (let i = 0; i < segments.length; i += 4) {
    length += Math.hypot(segments[i + 2] - segments[i], segments[i + 3] - segments[i + 1]);
  }
  return length;
}

/** Every end of an outline is the end of two segments. */
function assertClosed(segments) {
  const ends = new Map();
  for (let i = 0; i < segments.length; i += 2) {
    const key = `${segments[i].toFixed(5)},${segments[i + 1].toFixed(5)}`;
    ends.set(key, (ends.get(key) ?? 0) + 1);
  }
  for (const [key, count] of ends) assert.equal(count % 2, 0, `${key} is an open end`);
}

test("the outline of a disc is closed and as long as its circle", () => {
  const segments = outline(disc(8));
  assertClosed(segments);
  const expected = (2 * Math.PI * 8) / SIZE;
  assert.ok(Math.abs(perimeter(segments) - expected) < 0.02 * expected);
});

test("a region at the border is closed along it", () => {
  const segments = outline(grid(4, 6, () => 1));
  assertClosed(segments);
  assert.ok(Math.abs(perimeter(segments) - 4) < 0.5);
});

test("nothing inside has no outline", () => {
  assert.equal(outline(grid(4, 4, () => -1)).length, 0);
});

test("saddles stay closed", () => {
  assertClosed(outline(grid(12, 12, (x, y) => Math.sin(1.3 * x) * Math.sin(1.1 * y) - 0.05)));
});

test("distances are Euclidean", () => {
  const set = new Uint8Array(SIZE * SIZE);
  const points = [
    [3, 4],
    [20, 15],
  ];
  for (const [x, y] of points) set[y * SIZE + x] = 1;
  const distances = distanceTo(set, SIZE, SIZE);
  for (let y = 0; y < SIZE; y++) {
    for (let x = 0; x < SIZE; x++) {
      const known = Math.min(...points.map(([px, py]) => Math.hypot(x - px, y - py)));
      assert.ok(Math.abs(distances[y * SIZE + x] - known) < 1e-4);
    }
  }
});

test("growing moves the outline outwards, shrinking inwards", () => {
  for (const growth of [3, -3]) {
    const inside = region(disc(7), 0, growth).values.filter((value) => value > 0).length;
    const known = Math.PI * (7 + growth) ** 2;
    assert.ok(Math.abs(inside - known) < 0.2 * known, `${growth}: ${inside}, not ${known}`);
  }
});

test("small regions are dropped before the rest grows", () => {
  const two = grid(SIZE, SIZE, (x, y) => (x < 2 && y < 2) || (x > 10 && y > 10) ? 1 : 0);
  const { values } = region(two, 0.5, 0, 5);
  assert.ok(values[0] < 0);
  assert.ok(values[12 * SIZE + 12] > 0);
  assert.ok(region(two, 0.5, 2, 5).values[0] < 0);
});

test("a refined map has its values where its pixels are and none beyond them", () => {
  const fine = refine(Float32Array.from([0, 1, 2, 3]), 2, 2);
  assert.deepEqual([fine.height, fine.width], [8, 8]);
  assert.equal(Math.min(...fine.values), 0);
  assert.equal(Math.max(...fine.values), 3);
  assert.ok(Math.abs(fine.values.reduce((a, b) => a + b) / 64 - 1.5) < 1e-6);
});

test("the grid never exceeds what can be made between two frames", () => {
  for (const side of [1, 8, 32, 64, 100, 128, 256, 512]) {
    const [, width] = gridSize(1, side);
    assert.ok(width <= Math.max(256, side) && width % side === 0);
  }
});
