/** The viewer in full size, over everything else. */

import { make } from "./dom.js";
import { Panel } from "./panel.js";

export class FullSize {
  #dialog = make("dialog.bayesdiff-dialog");
  #panel;

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {(key: string, values?: object) => string} words
   */
  constructor(state, words) {
    this.#panel = new Panel(state, words, { close: () => this.#dialog.close() });
    this.#dialog.append(this.#panel.element);
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    // The page's shortcuts rest while the dialog is open.
    this.#dialog.addEventListener("keydown", (event) => event.stopPropagation());
    this.#dialog.addEventListener("close", () => this.dispose());
  }

  open() {
    document.body.append(this.#dialog);
    this.#dialog.showModal();
    this.#panel.stage.element.focus({ preventScroll: true });
  }

  dispose() {
    this.#panel.dispose();
    this.#dialog.remove();
  }
}
