/** All parts of the viewer together: on the node, and once more in the full-size dialog. */

import { Explanation, OpacitySlider, SignalChoice, StepSlider } from "./controls.js";
import { iconButton, make } from "./dom.js";
import { Histogram } from "./histogram.js";
import { Readout } from "./readout.js";
import { Stage } from "./stage.js";
import { Thumbnails } from "./thumbnails.js";

export class Panel {
  #state;
  #actions;
  #abort = new AbortController();

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {(key: string, values?: object) => string} words
   * @param {{expand?: () => void, close?: () => void}} actions a panel that closes is full size
   */
  constructor(state, words, { expand, close }) {
    this.#state = state;
    this.#actions = { expand, close };
    const options = { zoomable: Boolean(close), signal: this.#abort.signal };
    const signals = new SignalChoice(state, words, options);
    const explanation = new Explanation(state, words, options);
    const readout = new Readout(state, words, options);
    const histogram = new Histogram(state, words, options);
    const opacity = new OpacitySlider(state, words, options);
    const step = new StepSlider(state, words, options);
    const thumbnails = new Thumbnails(state, words, options);
    this.stage = new Stage(state, words, options);
    const sliders = make("div.bd-sliders", {}, [opacity.element, step.element]);
    this.element = make(`div.bayesdiff${close ? ".bd-large" : ""}`, {}, [
      make("div.bd-bar", {}, [signals.element, this.#buttons(words)]),
      this.stage.element,
      make("div.bd-side", {}, [
        ...[explanation.element, readout.element, histogram.element, sliders],
      ]),
      thumbnails.element,
    ]);
    this.#listen();
  }

  dispose() {
    this.#abort.abort();
    this.element.remove();
  }

  #buttons(words) {
    const { expand, close } = this.#actions;
    const { signal } = this.#abort;
    const alone = iconButton("eye", words("alone"));
    for (const type of ["pointerenter", "focus"]) {
      alone.addEventListener(type, () => this.#state.showAlone(true), { signal });
    }
    for (const type of ["pointerleave", "blur"]) {
      alone.addEventListener(type, () => this.#state.showAlone(false), { signal });
    }
    const group = make("div.bd-buttons", {}, [alone]);
    const update = () => (group.hidden = !close && !this.#state.payload);
    this.#state.addEventListener("content", update, { signal });
    update();
    const add = (icon, title, action) => {
      const button = iconButton(icon, title);
      button.addEventListener("click", action, { signal });
      group.append(button);
    };
    if (expand) add("expand", words("expand"), expand);
    if (close) add("fit", words("fit"), () => this.stage.fit());
    if (close) add("close", words("close"), close);
    return group;
  }

  #listen() {
    const { signal } = this.#abort;
    const { element } = this;
    element.addEventListener("keydown", (event) => this.#onKeyDown(event), { signal });
    element.addEventListener(
      "keyup",
      (event) => {
        if (event.key.toLowerCase() === "h") this.#state.showAlone(false);
      },
      { signal },
    );
    element.addEventListener("focusout", () => this.#state.showAlone(false), { signal });
    // Drags inside of the viewer are its own; the node is moved by its title.
    for (const type of ["pointerdown", "pointermove"]) {
      element.addEventListener(
        type,
        (event) => {
          if (event.buttons & 1) event.stopPropagation();
        },
        { signal },
      );
    }
  }

  #onKeyDown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#state.payload) return;
    const action = this.#actionFor(event);
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  #actionFor({ key, shiftKey }) {
    const { stage } = this;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (arrow[key] && shiftKey) return () => stage.stepProbe(...arrow[key]);
    if (key === "ArrowLeft" || key === "ArrowRight") return () => this.#turn(arrow[key][0]);
    if (key.toLowerCase() === "h") return () => this.#state.showAlone(true);
    if (key.toLowerCase() === "f" && this.#actions.expand) return this.#actions.expand;
    if (!this.#actions.close) return null;
    return {
      "+": () => stage.zoomBy(1.25),
      "=": () => stage.zoomBy(1.25),
      "-": () => stage.zoomBy(0.8),
      0: () => stage.fit(),
    }[key];
  }

  /** Goes to the next image, in the order of the strip. */
  #turn(by) {
    const { order, image } = this.#state;
    const next = order[order.indexOf(image) + by];
    if (next !== undefined) this.#state.select(next);
  }
}
