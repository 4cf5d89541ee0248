/** The controls of the viewer: signal buttons, their explanation, opacity slider, step slider. */

import { make, mark, write } from "./dom.js";
import { SIGNALS } from "./messages.js";

/** A button per signal; those of signals that the run did not compute are disabled. */
export class SignalChoice {
  #state;
  #translate;
  #buttons;

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, translate, { signal }) {
    this.#state = state;
    this.#translate = translate;
    this.#buttons = SIGNALS.map((name) =>
      make("button.bd-choice", { type: "button", text: translate(name), "data-signal": name }),
    );
    this.element = make("div.bd-choices", { role: "group", "aria-label": translate("signal") }, [
      ...this.#buttons,
    ]);
    for (const button of this.#buttons) {
      const choose = () => state.set({ signal: button.dataset.signal, step: 0 });
      button.addEventListener("click", choose, { signal });
    }
    for (const what of ["content", "view"]) {
      state.addEventListener(what, () => this.#update(), { signal });
    }
    this.#update();
  }

  #update() {
    const { payload, settings } = this.#state;
    this.element.hidden = !payload;
    if (!payload) return;
    const { stepLayer } = this.#state;
    for (const button of this.#buttons) {
      const name = button.dataset.signal;
      const help = this.#translate(`${name}Help`, { signal: detector(payload, this.#translate) });
      const computed = this.#state.has(name);
      button.disabled = !computed;
      mark(button, {
        title: computed ? help : `${help} ${this.#translate("notComputed")}`,
        "aria-pressed": settings.signal === name && !stepLayer,
      });
    }
  }
}

/** The name of the signal that `artifact` stands for in this run. */
function detector({ artifact }, translate) {
  return translate(artifact === "artifact" ? "together" : artifact);
}

/** A sentence that explains the signal or the step that is shown. */
export class Explanation {
  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, translate, { signal }) {
    this.element = make("p.bd-help");
    const update = () => {
      if (!state.payload) return;
      const name = state.stepLayer ? "undecided" : state.settings.signal;
      const signal = detector(state.payload, translate);
      write(this.element, translate(`${name}Help`, { signal }));
    };
    for (const what of ["content", "view"]) state.addEventListener(what, update, { signal });
    update();
  }
}

/** A slider with its name and its value as text. */
class Slider {
  /**
   * @param {import("./state.js").ViewerState} state
   * @param {string} name shown beside it
   * @param {object} attributes of the input element
   * @param {(value: number) => object} changes of the settings, for a value of the slider
   * @param {{signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, name, attributes, changes, { signal }) {
    this.input = make("input", { type: "range", "aria-label": name, ...attributes });
    this.output = make("span.bd-number");
    this.element = make("label.bd-slider", {}, [
      make("span.bd-name", { text: name }),
      this.input,
      this.output,
    ]);
    const drag = () => state.drag(changes(Number(this.input.value)));
    this.input.addEventListener("input", drag, { signal });
    this.input.addEventListener("change", () => state.settle(), { signal });
    // Arrow keys move the slider and nothing else on the page.
    this.input.addEventListener("keydown", (event) => event.stopPropagation(), { signal });
  }

  /** Shows a value; `text` is how people read it. */
  show(value, text) {
    if (this.input.value !== String(value)) this.input.value = String(value);
    write(this.output, text);
    mark(this.input, { "aria-valuetext": text });
  }
}

/** Sets the opacity of the heat over the image. */
export class OpacitySlider extends Slider {
  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, translate, options) {
    const range = { min: 0, max: 1, step: 0.01 };
    super(state, translate("opacity"), range, (opacity) => ({ opacity }), options);
    const update = () => {
      const { opacity } = state.settings;
      this.element.hidden = !state.payload?.signals.length || !state.images.count;
      this.show(opacity, `${Math.round(100 * opacity)} %`);
    };
    for (const what of ["content", "view"]) {
      state.addEventListener(what, update, { signal: options.signal });
    }
    update();
  }
}

/** Chooses one of the recorded steps of the run; its right end is the final signal. */
export class StepSlider extends Slider {
  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, translate, options) {
    const changes = (place) => {
      const { steps } = state.payload;
      return { step: place < steps.length ? Number(steps[place].name) : 0 };
    };
    super(state, translate("step"), { min: 0, max: 0, step: 1 }, changes, options);
    const update = () => {
      const steps = state.payload?.steps ?? [];
      this.element.hidden = !steps.length;
      if (!steps.length) return;
      mark(this.input, { max: steps.length });
      const layer = state.stepLayer;
      const count = state.payload.evaluations;
      const text = layer ? translate("stepOf", { step: layer.name, count }) : translate("final");
      this.show(layer ? steps.indexOf(layer) : steps.length, text);
    };
    for (const what of ["content", "view"]) {
      state.addEventListener(what, update, { signal: options.signal });
    }
    update();
  }
}
