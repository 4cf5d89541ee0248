/** Registers the extension: puts the viewer on UncertaintyHeatmap nodes and adds its settings. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { returnToRow } from "./viewer/node_layout.js";
import { HeatmapViewer } from "./viewer/viewer.js";

const NODE = "UncertaintyHeatmap";
const KEY = "bayesdiff";
const COLORMAPS = ["inferno", "magma", "viridis", "cividis", "turbo"];

const setting = (id) => app.extensionManager.setting.get(id);

/** @type {import("./viewer/viewer.js").Host} */
const host = {
  url: (file) => api.apiURL(`/view?${new URLSearchParams(file)}`),
  locale: () => setting("Comfy.Locale") ?? "en",
  zoomCanvas: (event) => {
    // With Vue nodes the event reaches the canvas by itself.
    if (window.LiteGraph?.vueNodesMode) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  },
};

/** @type {WeakMap<object, HeatmapViewer>} */
const viewers = new WeakMap();

/** Wraps a method of an object: `after` is called with the object after each call. */
function extend(prototype, name, after) {
  const original = prototype[name];
  prototype[name] = function (...args) {
    const result = original?.apply(this, args);
    after(this, ...args);
    return result;
  };
}

/** Puts a viewer on a new node, with the defaults from the settings and a size to show it. */
function addViewer(node) {
  const value = (name) => node.widgets?.find((widget) => widget.name === name);
  const defaults = { colormap: setting("BayesDiff.Colormap"), opacity: setting("BayesDiff.Opacity") };
  for (const [name, wanted] of Object.entries(defaults)) {
    if (value(name) && wanted !== undefined) value(name).value = wanted;
  }
  const viewer = new HeatmapViewer(node, host);
  viewers.set(node, viewer);
  extend(node, "onRemoved", () => viewer.dispose());
  const [width, height] = node.computeSize();
  // Vue's widgets are higher than the host's computed size assumes.
  const more = window.LiteGraph?.vueNodesMode ? 280 : 100;
  node.setSize([Math.max(width, 400), height + more]);
}

/**
 * Shows the outputs of the last run on a node that a tab or undo restored: the restored state need
 * not know them. The page has them only after the node is configured.
 */
function refresh(node) {
  const viewer = viewers.get(node);
  if (!viewer) return;
  viewer.refresh();
  setTimeout(() => {
    if (node.graph && node.graph === app.canvas.graph) returnToRow(viewer.element, node.id);
    viewer.recall(lastOutput(node)?.[KEY]?.at(-1));
  });
}

/** The outputs that the page holds of the last run of a node, if any. */
function lastOutput(node) {
  const workflow = app.extensionManager.workflow?.activeWorkflow;
  const outputs = { ...app.nodeOutputs, ...workflow?.changeTracker?.nodeOutputs };
  return executionIds(node.graph, app.rootGraph ?? app.graph, node.id)
    .map((id) => outputs[id])
    .find(Boolean);
}

/** The ids under which the server runs a node: in subgraphs prefixed by those of their holders. */
function executionIds(target, graph, id) {
  if (target === graph) return [String(id)];
  return (graph?.nodes ?? graph?._nodes ?? [])
    .filter((holder) => holder.subgraph)
    .flatMap((holder) =>
      executionIds(target, holder.subgraph, id).map((inner) => `${holder.id}:${inner}`),
    );
}

app.registerExtension({
  name: "BayesDiff.Viewer",
  settings: [
    {
      id: "BayesDiff.Opacity",
      category: ["BayesDiff", "Heatmap", "Opacity"],
      name: "Default opacity of the heat",
      tooltip: "For new UncertaintyHeatmap nodes.",
      type: "slider",
      attrs: { min: 0, max: 1, step: 0.05 },
      defaultValue: 0.7,
    },
    {
      id: "BayesDiff.Colormap",
      category: ["BayesDiff", "Heatmap", "Colormap"],
      name: "Default colormap",
      tooltip: "For new UncertaintyHeatmap nodes.",
      type: "combo",
      options: COLORMAPS,
      defaultValue: "inferno",
    },
  ],
  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    extend(nodeType.prototype, "onNodeCreated", addViewer);
    extend(nodeType.prototype, "onConfigure", refresh);
    extend(nodeType.prototype, "onExecuted", (node, output) => {
      viewers.get(node)?.show(output?.[KEY]?.at(-1));
    });
  },
});

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./viewer/viewer.css", import.meta.url).href;
document.head.append(style);
