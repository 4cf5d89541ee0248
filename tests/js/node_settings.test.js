import assert from "node:assert/strict";
import test from "node:test";

import { NodeSettings } from "../../js/viewer/node_settings.js";

/** A node with two widgets that write down what their callbacks are told. */
function nodeOf(told) {
  const widget = (name, value) => ({ name, value, callback: (to) => told.push([name, to]) });
  return { widgets: [widget("threshold", 90), widget("opacity", 0.7)] };
}

test("a value is written to the node and told to the viewer once", () => {
  const told = [];
  let changes = 0;
  const node = nodeOf(told);
  const settings = new NodeSettings(node, () => changes++);
  settings.write({ threshold: 80, opacity: 0.7 });
  assert.deepEqual(told, [["threshold", 80]]);
  assert.equal(changes, 1);
  assert.deepEqual(settings.values, { threshold: 80, opacity: 0.7 });
});

test("a drag shows every value at once and gives the node the last", () => {
  const told = [];
  const seen = [];
  const node = nodeOf(told);
  const settings = new NodeSettings(node, () => seen.push(settings.values.threshold));
  for (const threshold of [80, 70, 60]) settings.writeSoon({ threshold });
  assert.deepEqual(seen, [80, 70, 60]);
  assert.equal(node.widgets[0].value, 90);
  settings.settle();
  assert.equal(node.widgets[0].value, 60);
  assert.deepEqual(told, [["threshold", 60]]);
});

test("a drag that nobody ends reaches the node all the same", async () => {
  const node = nodeOf([]);
  const settings = new NodeSettings(node, () => {});
  settings.writeSoon({ opacity: 0.2 });
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(node.widgets[1].value, 0.2);
  assert.deepEqual(settings.values, { threshold: 90, opacity: 0.2 });
});
