import assert from "node:assert/strict";
import test from "node:test";

import { number, percentile, tidy } from "../../js/viewer/format.js";

test("numbers have three digits and no row of zeros", () => {
  const known = { 0: "0", 0.01234: "0.0123", 1.5: "1.50", 123.4: "123", "-0.5": "−0.500" };
  for (const [value, text] of Object.entries(known)) assert.equal(number(Number(value)), text);
  assert.equal(number(5.12e-4), "0.00051");
  assert.equal(number(1.23e-6), "1.2e−6");
  assert.equal(number(NaN), "–");
});

test("percentiles show a decimal where they have one", () => {
  assert.equal(percentile(90), "90");
  assert.equal(percentile(97.46), "97.5");
  assert.equal(tidy(0.0123456), 0.01235);
});
