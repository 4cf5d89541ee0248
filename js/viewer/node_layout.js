/**
 * Sizes the viewer inside its node, on the legacy canvas and with Vue nodes.
 *
 * On the legacy canvas a widget reports its minimum height and gets its share of the node's height.
 * With Vue nodes it gets a row that is as high as its content, and what a user adds to the node's
 * height stays empty below: there the picture extends over its row to the end of the node. The row
 * itself stays as it is, so that the node can be made smaller again.
 */

import { Frame, boxOf } from "./dom.js";

const VUE_WIDGETS = ".lg-node-widgets";
const BORDER = { box: "border-box" };

/**
 * Puts the viewer of a node that undo restored back into its row: Vue keeps the rows of a node with
 * the same id, and fills them only once.
 * @param {HTMLElement} element of the viewer
 * @param {number | string} nodeId
 */
export function returnToRow(element, nodeId) {
  if (element.isConnected) return;
  const widgets = document.querySelector(`[data-node-id="${nodeId}"] ${VUE_WIDGETS}`);
  const row = widgets?.lastElementChild?.lastElementChild;
  if (row && !row.hasChildNodes()) row.append(element);
}

/** Keeps the height of the viewer's picture in step with the height of its node. */
export class NodeLayout {
  #element;
  #stage;
  #widgets = null;
  #extra = 0;
  #observer = new ResizeObserver(() => this.#frame.request());
  #frame = new Frame(() => this.#measure());
  #heightAround;

  /**
   * @param {HTMLElement} element of the viewer
   * @param {HTMLElement} stage its picture, the one part whose height can change
   * @param {number} heightAround height of everything else in pixels, until it can be measured
   * @param {AbortSignal} signal ends the observation
   */
  constructor(element, stage, heightAround, signal) {
    this.#element = element;
    this.#stage = stage;
    this.#heightAround = heightAround;
    for (const part of element.children) this.#observer.observe(part, BORDER);
    this.#observer.observe(element, BORDER);
    signal.addEventListener("abort", () => {
      this.#observer.disconnect();
      this.#frame.cancel();
    });
  }

  /** @returns {number} the height of everything but the picture, in the node's own pixels */
  get heightAround() {
    return this.#heightAround;
  }

  #measure() {
    if (!this.#element.clientWidth) return;
    this.#heightAround = this.#element.scrollHeight - this.#stage.offsetHeight;
    const widgets = this.#element.closest(VUE_WIDGETS);
    if (widgets !== this.#widgets) {
      if (this.#widgets) this.#observer.unobserve(this.#widgets);
      if (widgets) this.#observer.observe(widgets, BORDER);
      this.#widgets = widgets;
    }
    const extra = widgets ? Math.max(0, Math.round(this.#extra + this.#below())) : 0;
    if (extra === this.#extra) return;
    this.#extra = extra;
    this.#element.style.setProperty("--bd-extra", `${extra}px`);
  }

  /** The empty height between the viewer and the end of the node, in the node's own pixels. */
  #below() {
    const last = this.#widgets.lastElementChild;
    if (!last?.contains(this.#element)) return -this.#extra;
    const { bottom } = this.#element.getBoundingClientRect();
    const gap = this.#widgets.getBoundingClientRect().bottom - bottom;
    return gap / boxOf(this.#element).zoom;
  }
}
