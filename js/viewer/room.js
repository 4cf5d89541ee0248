/**
 * The room that the host gives to a viewer on a node.
 *
 * On the legacy canvas a widget says how little it can do with and gets its share of the node's
 * height. With Vue nodes it gets a row that is as high as what lies in it, and what a user adds to
 * the node's height stays empty below: there the picture reaches over its row to the end of the
 * node. The row itself stays as it is, so that the node can be made smaller again.
 */

import { Frame, boxOf } from "./dom.js";

const VUE_WIDGETS = ".lg-node-widgets";
const BORDER = { box: "border-box" };

/**
 * Puts the viewer of a node that came back by undo into its row: Vue keeps the rows of a node with
 * the same id, and fills them only once.
 */
export function takeRow(element, nodeId) {
  if (element.isConnected) return;
  const widgets = document.querySelector(`[data-node-id="${nodeId}"] ${VUE_WIDGETS}`);
  const row = widgets?.lastElementChild?.lastElementChild;
  if (row && !row.hasChildNodes()) row.append(element);
}

export class Room {
  #element;
  #stage;
  #widgets = null;
  #extra = 0;
  #observer = new ResizeObserver(() => this.#frame.request());
  #frame = new Frame(() => this.#measure());
  #around;

  /**
   * @param {HTMLElement} element of the viewer
   * @param {HTMLElement} stage its picture, whose height is free
   * @param {number} around height of everything else, until it can be measured
   * @param {AbortSignal} signal
   */
  constructor(element, stage, around, signal) {
    this.#element = element;
    this.#stage = stage;
    this.#around = around;
    for (const part of element.children) this.#observer.observe(part, BORDER);
    this.#observer.observe(element, BORDER);
    signal.addEventListener("abort", () => {
      this.#observer.disconnect();
      this.#frame.cancel();
    });
  }

  /** The height of everything but the picture. */
  get around() {
    return this.#around;
  }

  #measure() {
    if (!this.#element.clientWidth) return;
    this.#around = this.#element.scrollHeight - this.#stage.offsetHeight;
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

  /** What is empty between the viewer and the end of the node, in the node's own pixels. */
  #below() {
    const last = this.#widgets.lastElementChild;
    if (!last?.contains(this.#element)) return -this.#extra;
    const { bottom } = this.#element.getBoundingClientRect();
    const gap = this.#widgets.getBoundingClientRect().bottom - bottom;
    return gap / boxOf(this.#element).zoom;
  }
}
