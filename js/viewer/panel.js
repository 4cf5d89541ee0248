/** Assembles all parts of the viewer: on the node, and a second time in the full-size dialog. */

import { Explanation, OpacitySlider, SignalChoice, StepSlider } from "./controls.js";
import { iconButton, make } from "./dom.js";
import { Histogram } from "./histogram.js";
import { Readout } from "./readout.js";
import { Stage } from "./stage.js";
import { Thumbnails } from "./thumbnails.js";

/** All parts of the viewer, its buttons and its keyboard shortcuts. */
export class Panel {
  #state;
  #actions;
  #abort = new AbortController();

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{expand?: () => void, close?: () => void}} actions of the buttons; a
   *   panel with `close` is the full-size one
   */
  constructor(state, translate, { expand, close }) {
    this.#state = state;
    this.#actions = { expand, close };
    const options = { zoomable: Boolean(close), signal: this.#abort.signal };
    const signals = new SignalChoice(state, translate, options);
    const explanation = new Explanation(state, translate, options);
    const readout = new Readout(state, translate, options);
    const histogram = new Histogram(state, translate, options);
    const opacity = new OpacitySlider(state, translate, options);
    const step = new StepSlider(state, translate, options);
    const thumbnails = new Thumbnails(state, translate, options);
    this.stage = new Stage(state, translate, options);
    const sliders = make("div.bd-sliders", {}, [opacity.element, step.element]);
    this.element = make(`div.bayesdiff${close ? ".bd-large" : ""}`, {}, [
      make("div.bd-bar", {}, [signals.element, this.#buttons(translate)]),
      this.stage.element,
      make("div.bd-side", {}, [
        ...[explanation.element, readout.element, histogram.element, sliders],
      ]),
      thumbnails.element,
    ]);
    this.#listen();
  }

  /** Removes the panel and ends everything that its parts listen to. */
  dispose() {
    this.#abort.abort();
    this.element.remove();
  }

  #buttons(translate) {
    const { expand, close } = this.#actions;
    const { signal } = this.#abort;
    const alone = iconButton("eye", translate("alone"));
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
    if (expand) add("expand", translate("expand"), expand);
    if (close) add("fit", translate("fit"), () => this.stage.fit());
    if (close) add("close", translate("close"), close);
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
    // A drag inside the viewer does not move the node; a drag of the node's title does.
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

  /** Selects the next or the previous image, in the order of the strip. */
  #turn(by) {
    const { order, image } = this.#state;
    const next = order[order.indexOf(image) + by];
    if (next !== undefined) this.#state.select(next);
  }
}
