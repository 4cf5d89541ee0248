import assert from "node:assert/strict";
import test from "node:test";

import { isReference, readPayload } from "../../js/viewer/payload.js";
import { writePayload } from "./binary.js";

const MAPS = [
  [0, 1, 2, 3, 4, 5],
  [-1, -1, -1, -1, -1, 1],
];
const payload = readPayload(writePayload(MAPS, 2, 3));
const [layer] = payload.signals;

test("values come back to half a step of their quantisation", () => {
  for (const [image, map] of MAPS.entries()) {
    const range = Math.max(...map) - Math.min(...map);
    layer.field(image).forEach((value, index) => {
      assert.ok(Math.abs(value - map[index]) <= range / 131070 + 1e-6);
    });
  }
});

test("the middle of a pixel has the pixel's value, the border that of its neighbour", () => {
  assert.ok(Math.abs(layer.sample(0, 0.5 / 3, 0.25) - 0) < 1e-4);
  assert.ok(Math.abs(layer.sample(0, 2.5 / 3, 0.75) - 5) < 1e-4);
  assert.ok(Math.abs(layer.sample(0, 1, 1) - 5) < 1e-4);
  assert.ok(Math.abs(layer.sample(0, 0.5, 0.5) - 2.5) < 1e-4);
});

test("percentile and value are inverse to each other", () => {
  for (const percentile of [0, 12.5, 50, 90, 100]) {
    const value = layer.valueAt(0, percentile);
    assert.ok(Math.abs(layer.percentileOf(0, value) - percentile) < 1e-3);
  }
  assert.equal(layer.percentileOf(0, -7), 0);
  assert.equal(layer.percentileOf(0, 7), 100);
});

test("a scale is the image's, the batch's or fixed", () => {
  assert.deepEqual(layer.limitsOf(1, "image"), [-1, 1]);
  assert.deepEqual(layer.limitsOf(1, "batch"), [-1, 5]);
  assert.deepEqual(layer.limitsOf(1, "fixed", [0, 2]), [0, 2]);
  assert.deepEqual(layer.limitsOf(1, "fixed", [2, 2]), [-1, 1]);
});

test("a histogram has shares that sum to one, counted or read off the percentiles", () => {
  for (const some of [layer, payload.steps[0]]) {
    const { shares, low, high } = some.histogramOf(0);
    assert.ok(Math.abs(shares.reduce((a, b) => a + b) - 1) < 1e-6);
    assert.ok(low < high);
  }
});

test("colours are views into the file", () => {
  assert.deepEqual([...payload.colormaps.grey.subarray(765)], [255, 255, 255]);
});

test("another version is refused in words", () => {
  assert.throws(() => readPayload(writePayload(MAPS, 2, 3, { version: 9 })), /reload the page/);
});

test("what another version saved in the workflow is not taken for a reference", () => {
  assert.ok(isReference({ values: { filename: "a.bin" }, images: [] }));
  for (const other of [undefined, null, "", 3, {}, { values: {} }]) assert.ok(!isReference(other));
});
