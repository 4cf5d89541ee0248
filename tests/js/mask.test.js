import assert from "node:assert/strict";
import test from "node:test";

import { distanceTo, signedMask } from "../../js/viewer/mask.js";
import { SIZE, disc, grid } from "./grids.js";

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
    const inside = signedMask(disc(7), 0, growth).values.filter((value) => value > 0).length;
    const known = Math.PI * (7 + growth) ** 2;
    assert.ok(Math.abs(inside - known) < 0.2 * known, `${growth}: ${inside}, not ${known}`);
  }
});

test("small regions are dropped before the rest grows", () => {
  const two = grid(SIZE, SIZE, (x, y) => (x < 2 && y < 2) || (x > 10 && y > 10) ? 1 : 0);
  const { values } = signedMask(two, 0.5, 0, 5);
  assert.ok(values[0] < 0);
  assert.ok(values[12 * SIZE + 12] > 0);
  assert.ok(signedMask(two, 0.5, 2, 5).values[0] < 0);
});
