import assert from "node:assert/strict";
import test from "node:test";

import { fromSureToUnsure } from "../../js/viewer/state.js";

test("images are ordered from sure to unsure", () => {
  assert.deepEqual(fromSureToUnsure([0.3, -0.1, 0.3, 0.2]), [1, 3, 0, 2]);
});
