import assert from "node:assert/strict";
import test from "node:test";

import { gridSize, upsample } from "../../js/viewer/upsample.js";

test("an upsampled map has its values where its pixels are and none beyond them", () => {
  const fine = upsample(Float32Array.from([0, 1, 2, 3]), 2, 2);
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
