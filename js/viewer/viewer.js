/**
 * Runs the viewer of one node as a widget: loads the values of runs, saves what is shown in the
 * workflow, restores it, and cleans up when the node goes.
 *
 * @typedef {import("./payload.js").Reference} Reference
 * @typedef {{reference: Reference, image: number}} Saved what the workflow keeps
 *
 * @typedef {object} Host the page that the viewer lives in
 * @property {(file: import("./payload.js").FileReference) => string} url of a file of the server
 * @property {() => string} locale such as "zh-TW"
 * @property {(event: WheelEvent) => void} zoomCanvas zooms the canvas that the node is on
 */

import { FullSize } from "./dialog.js";
import { Images } from "./images.js";
import { translator } from "./messages.js";
import { NodeLayout } from "./node_layout.js";
import { NodeSettings } from "./node_settings.js";
import { Panel } from "./panel.js";
import { isReference, readPayload } from "./payload.js";
import { ViewerState } from "./state.js";

/** Name of the widget on the node. */
export const WIDGET = "viewer";
const SMALLEST_STAGE = 220;
const AROUND_STAGE = 330;
const MARGIN = 8;

/** The viewer of one node. */
export class HeatmapViewer {
  #host;
  #translate;
  #panel;
  #layout;
  #dialog = null;
  #reference = null;
  #restored = null;
  #abort = new AbortController();

  /**
   * @param {object} node of the host
   * @param {Host} host
   */
  constructor(node, host) {
    this.#host = host;
    this.#translate = translator(host.locale());
    this.state = new ViewerState(new NodeSettings(node, () => this.state.refresh()));
    this.#panel = new Panel(this.state, this.#translate, { expand: () => this.expand() });
    this.element = this.#panel.element;
    const { signal } = this.#abort;
    this.#layout = new NodeLayout(this.element, this.#panel.stage.element, AROUND_STAGE, signal);
    this.element.addEventListener("wheel", (event) => host.zoomCanvas(event), { signal });
    this.widget = node.addDOMWidget(WIDGET, "bayesdiff_viewer", this.element, {
      serialize: false,
      hideOnZoom: false,
      margin: MARGIN,
      getMinHeight: () => SMALLEST_STAGE + this.#layout.heightAround + 2 * MARGIN,
      getValue: () => this.saved,
      setValue: (value) => this.restore(value),
    });
    this.widget.viewer = this;
  }

  /** @returns {Reference | null} the files of the run that is shown */
  get reference() {
    return this.#reference;
  }

  /** @returns {Saved | string} what the workflow keeps; a string where there is nothing yet */
  get saved() {
    const { image } = this.state;
    // A state that undo restored must be saved unchanged, or the host has nothing left to redo.
    if (this.#restored?.image === image) return this.#restored.saved;
    return this.#reference ? { reference: this.#reference, image } : "";
  }

  /**
   * Shows again what a saved workflow was showing, as long as the server still has it.
   * @param {Saved | string} saved
   */
  restore(saved) {
    if (isReference(saved?.reference)) {
      this.state.image = Number(saved.image) || 0;
      this.#load(saved.reference);
    }
    this.#restored = { saved, image: this.state.image };
  }

  /**
   * Shows the last run of the node, which may be newer than the restored state.
   * @param {Reference | undefined} reference
   */
  recall(reference) {
    return this.#load(reference);
  }

  /**
   * Shows a run that has just ended.
   * @param {Reference | undefined} reference the files that the run wrote
   */
  show(reference) {
    this.#restored = null;
    return this.#load(reference);
  }

  async #load(reference) {
    if (!isReference(reference) || same(reference, this.#reference)) return;
    this.#reference = reference;
    if (!this.state.payload) this.state.showMessage("loading");
    const payload = await this.#fetch(reference.values);
    if (reference !== this.#reference || this.#abort.signal.aborted) return;
    if (!payload) {
      this.#reference = null;
      this.state.showMessage("expired");
      return;
    }
    const urls = reference.images.map((image) => this.#host.url(image));
    this.state.show(payload, new Images(urls));
  }

  /** Opens the viewer in full size. */
  expand() {
    this.#dialog?.dispose();
    this.#dialog = new FullSize(this.state, this.#translate);
    this.#dialog.open();
  }

  /** Draws again after the host has set the node's widgets without calling their callbacks. */
  refresh() {
    this.state.refresh();
  }

  /** Ends everything that the viewer listens to; the node is gone. */
  dispose() {
    this.#abort.abort();
    this.state.settle();
    this.#dialog?.dispose();
    this.#panel.dispose();
  }

  async #fetch(file) {
    try {
      const answer = await fetch(this.#host.url(file), { signal: this.#abort.signal });
      // A file that was cut off is as good as none.
      return answer.ok ? readPayload(await answer.arrayBuffer()) : null;
    } catch {
      return null;
    }
  }
}

function same(one, other) {
  return one.values.filename === other?.values.filename;
}
