/**
 * The viewer of one node, as a widget: what it shows, what it saves in the workflow, its life.
 *
 * @typedef {import("./payload.js").Reference} Reference
 * @typedef {{reference: Reference, image: number}} Saved
 *
 * @typedef {object} Host the page that the viewer lives in
 * @property {(file: import("./payload.js").FileReference) => string} url of a file of the server
 * @property {() => string} locale
 * @property {(event: WheelEvent) => void} zoomCanvas
 */

import { FullSize } from "./dialog.js";
import { Images } from "./images.js";
import { Panel } from "./panel.js";
import { isReference, readPayload } from "./payload.js";
import { Room } from "./room.js";
import { NodeSettings } from "./settings.js";
import { ViewerState } from "./state.js";
import { wordsOf } from "./words.js";

export const WIDGET = "viewer";
const SMALLEST_STAGE = 220;
const AROUND_STAGE = 330;
const MARGIN = 8;

export class HeatmapViewer {
  #host;
  #words;
  #panel;
  #room;
  #dialog = null;
  #reference = null;
  #restored = null;
  #abort = new AbortController();

  /**
   * @param {object} node
   * @param {Host} host
   */
  constructor(node, host) {
    this.#host = host;
    this.#words = wordsOf(host.locale());
    this.state = new ViewerState(new NodeSettings(node, () => this.state.refresh()));
    this.#panel = new Panel(this.state, this.#words, { expand: () => this.expand() });
    this.element = this.#panel.element;
    const { signal } = this.#abort;
    this.#room = new Room(this.element, this.#panel.stage.element, AROUND_STAGE, signal);
    this.element.addEventListener("wheel", (event) => host.zoomCanvas(event), { signal });
    this.widget = node.addDOMWidget(WIDGET, "bayesdiff_viewer", this.element, {
      serialize: false,
      hideOnZoom: false,
      margin: MARGIN,
      getMinHeight: () => SMALLEST_STAGE + this.#room.around + 2 * MARGIN,
      getValue: () => this.saved,
      setValue: (value) => this.restore(value),
    });
    this.widget.viewer = this;
  }

  /** @returns {Reference | null} what is shown */
  get reference() {
    return this.#reference;
  }

  /** @returns {Saved | string} what the workflow keeps; a string where there is nothing yet */
  get saved() {
    const { image } = this.state;
    // What came back by undo must be what goes out again, or there is nothing left to redo.
    if (this.#restored?.image === image) return this.#restored.saved;
    return this.#reference ? { reference: this.#reference, image } : "";
  }

  /** Shows again what a saved workflow was showing, as long as the server still has it. */
  restore(saved) {
    if (isReference(saved?.reference)) {
      this.state.image = Number(saved.image) || 0;
      this.#load(saved.reference);
    }
    this.#restored = { saved, image: this.state.image };
  }

  /** Shows the last run, which what was restored need not know. */
  recall(reference) {
    return this.#load(reference);
  }

  /** @param {Reference} reference what a run of the node left behind */
  show(reference) {
    this.#restored = null;
    return this.#load(reference);
  }

  async #load(reference) {
    if (!isReference(reference) || same(reference, this.#reference)) return;
    this.#reference = reference;
    if (!this.state.payload) this.state.showMessage("loading");
    const buffer = await this.#fetch(reference.values);
    if (reference !== this.#reference || this.#abort.signal.aborted) return;
    if (!buffer) {
      this.#reference = null;
      this.state.showMessage("expired");
      return;
    }
    const urls = reference.images.map((image) => this.#host.url(image));
    this.state.show(readPayload(buffer), new Images(urls));
  }

  expand() {
    this.#dialog?.dispose();
    this.#dialog = new FullSize(this.state, this.#words);
    this.#dialog.open();
  }

  /** The node's widgets have got their saved values, without telling anyone. */
  refresh() {
    this.state.refresh();
  }

  dispose() {
    this.#abort.abort();
    this.state.settle();
    this.#dialog?.dispose();
    this.#panel.dispose();
  }

  async #fetch(file) {
    try {
      const answer = await fetch(this.#host.url(file), { signal: this.#abort.signal });
      return answer.ok ? await answer.arrayBuffer() : null;
    } catch {
      return null;
    }
  }
}

function same(one, other) {
  return one.values.filename === other?.values.filename;
}
