/** The viewer computes what the core computes; tests/core/test_viewer_parity.py wrote the fixture. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { paintHeat } from "../../js/viewer/heat.js";
import { signedMask } from "../../js/viewer/mask.js";
import { gridSize, upsample } from "../../js/viewer/upsample.js";

const fixture = JSON.parse(readFileSync(new URL("./fixtures/parity.json", import.meta.url)));

const gridOf = ({ values, ...size }) => ({ values: Float32Array.from(values), ...size });

const pixelsOf = ({ values }) => Array.from(values, (value) => (value > 0 ? "1" : "0")).join("");

test("masks are the core's, pixel by pixel", () => {
  for (const { map, threshold, grow, minimum_area: area, mask } of fixture.masks) {
    const found = pixelsOf(signedMask(gridOf(fixture.maps[map]), threshold, grow, area));
    assert.equal(found, mask, `${map}: above ${threshold}, grown ${grow}, at least ${area}`);
  }
});

test("upsampled maps are the core's to a rounding", () => {
  for (const { values, height, width, factor, result } of fixture.upsampled) {
    assert.deepEqual(gridSize(height, width), [factor * height, factor * width]);
    const found = upsample(Float32Array.from(values), height, width);
    const range = Math.max(...values) - Math.min(...values);
    // The core's places between pixels are in single precision, which thirds do not fit into.
    const tolerance = range * (factor === 3 ? 2 ** -23 * width : 1e-6);
    assert.equal(found.values.length, result.length);
    for (const [index, value] of found.values.entries()) {
      assert.ok(Math.abs(value - result[index]) <= tolerance, `${height} x ${width}, ${index}`);
    }
  }
});

// A grid that is coarser than the image rounds distances to its own pixels.
test("on a coarser grid masks cover nearly the same share, on an equal one the same", () => {
  for (const { map, pixels, threshold, grow, share } of fixture.coarse) {
    const { values, height, width } = fixture.maps[map];
    const grid = upsample(Float32Array.from(values), height, width);
    const mask = pixelsOf(signedMask(grid, threshold, grow / pixels, 0, pixels));
    const found = mask.replaceAll("0", "").length / mask.length;
    const tolerance = pixels === 1 ? 1e-6 : 0.025;
    assert.ok(Math.abs(found - share) <= tolerance, `${pixels}, ${grow}: ${found}, not ${share}`);
  }
});

test("colours and opacities are the core's, rounded to bytes", () => {
  for (const { limits, colormap, colors, opacities, ...map } of fixture.colors) {
    const table = Uint8Array.from(fixture.colormaps[colormap]);
    const opaque = paintHeat(gridOf(map), limits, table, true);
    const clear = paintHeat(gridOf(map), limits, table, false);
    for (const [index, opacity] of opacities.entries()) {
      assert.ok(Math.abs(clear[4 * index + 3] - 255 * opacity) < 0.501);
      for (const channel of [0, 1, 2]) {
        const known = colors[3 * index + channel];
        const found = opaque[4 * index + channel];
        assert.ok(Math.abs(found - known) < 0.501, `${colormap} ${index}: ${found}, not ${known}`);
        assert.equal(clear[4 * index + channel], found);
      }
    }
  }
});
