import assert from "node:assert/strict";
import test from "node:test";

import { cssColor, paintHeat } from "../../js/viewer/heat.js";

const GREY = Uint8Array.from({ length: 768 }, (_, index) => Math.floor(index / 3));
const ramp = { values: Float32Array.from([-1, 0, 1, 2, 3]), height: 1, width: 5 };

test("values get the colours between the limits, clamped outside", () => {
  const pixels = paintHeat(ramp, [0, 2], GREY, true);
  const reds = [...pixels].filter((_, index) => index % 4 === 0);
  assert.deepEqual(reds, [0, 0, 128, 255, 255]);
  assert.ok([...pixels].every((byte, index) => index % 4 !== 3 || byte === 255));
});

test("over an image the sure end is clear and the unsure one strong", () => {
  const pixels = paintHeat(ramp, [0, 2], GREY, false);
  const alphas = [...pixels].filter((_, index) => index % 4 === 3);
  assert.deepEqual(alphas, [0, 0, 128, 255, 255]);
});

test("a constant map shows nothing that stands out", () => {
  const flat = { values: new Float32Array(4).fill(2), height: 2, width: 2 };
  assert.ok(paintHeat(flat, [2, 2], GREY, false).every((byte) => byte === 0));
});

test("a single colour is the palette's", () => {
  assert.equal(cssColor(GREY, 1), "rgb(255 255 255)");
  assert.equal(cssColor(GREY, -3), "rgb(0 0 0)");
});
