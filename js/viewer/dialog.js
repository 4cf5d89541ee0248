/** Shows the viewer in full size, in a dialog over the page. */

import { make } from "./dom.js";
import { Panel } from "./panel.js";

/** A dialog with a panel of its own on the state of the viewer. */
export class FullSize {
  #dialog = make("dialog.bayesdiff-dialog");
  #panel;

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   */
  constructor(state, translate) {
    this.#panel = new Panel(state, translate, { close: () => this.#dialog.close() });
    this.#dialog.append(this.#panel.element);
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    // The page's keyboard shortcuts must not react while the dialog is open.
    this.#dialog.addEventListener("keydown", (event) => event.stopPropagation());
    this.#dialog.addEventListener("close", () => this.dispose());
  }

  /** Opens the dialog and puts the focus on the picture. */
  open() {
    document.body.append(this.#dialog);
    this.#dialog.showModal();
    this.#panel.stage.element.focus({ preventScroll: true });
  }

  /** Removes the dialog from the page. */
  dispose() {
    this.#panel.dispose();
    this.#dialog.remove();
  }
}
