/** Which signal is shown, how strongly, and at which step of the run. */

import { make, mark, write } from "./dom.js";

const SIGNALS = ["artifact", "trajectory", "contrast", "posterior"];

/** Signals side by side; those that the run did not compute cannot be pressed. */
export class SignalChoice {
  #state;
  #words;
  #buttons;

  constructor(state, words, { signal }) {
    this.#state = state;
    this.#words = words;
    this.#buttons = SIGNALS.map((name) =>
      make("button.bd-choice", { type: "button", text: words(name), "data-signal": name }),
    );
    this.element = make("div.bd-choices", { role: "group", "aria-label": words("signal") }, [
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
      const help = this.#words(`${name}Help`, { signal: detector(payload, this.#words) });
      const computed = this.#state.has(name);
      button.disabled = !computed;
      mark(button, {
        title: computed ? help : `${help} ${this.#words("notComputed")}`,
        "aria-pressed": settings.signal === name && !stepLayer,
      });
    }
  }
}

/** What `artifact` stands for in this run, in words. */
function detector({ artifact }, words) {
  return words(artifact === "artifact" ? "together" : artifact);
}

/** One sentence on what is shown. */
export class Explanation {
  constructor(state, words, { signal }) {
    this.element = make("p.bd-help");
    const update = () => {
      if (!state.payload) return;
      const name = state.stepLayer ? "undecided" : state.settings.signal;
      const signal = detector(state.payload, words);
      write(this.element, words(`${name}Help`, { signal }));
    };
    for (const what of ["content", "view"]) state.addEventListener(what, update, { signal });
    update();
  }
}

/** A slider with its name and its value in words. */
class Slider {
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
    // Arrow keys are the slider's, not those of the picture or the page.
    this.input.addEventListener("keydown", (event) => event.stopPropagation(), { signal });
  }

  show(value, text) {
    if (this.input.value !== String(value)) this.input.value = String(value);
    write(this.output, text);
    mark(this.input, { "aria-valuetext": text });
  }
}

export class OpacitySlider extends Slider {
  constructor(state, words, options) {
    const range = { min: 0, max: 1, step: 0.01 };
    super(state, words("opacity"), range, (opacity) => ({ opacity }), options);
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

/** Scrubs through the recorded steps; its right end is the final signal. */
export class StepSlider extends Slider {
  constructor(state, words, options) {
    const changes = (place) => {
      const { steps } = state.payload;
      return { step: place < steps.length ? Number(steps[place].name) : 0 };
    };
    super(state, words("step"), { min: 0, max: 0, step: 1 }, changes, options);
    const update = () => {
      const steps = state.payload?.steps ?? [];
      this.element.hidden = !steps.length;
      if (!steps.length) return;
      mark(this.input, { max: steps.length });
      const layer = state.stepLayer;
      const count = state.payload.evaluations;
      const text = layer ? words("stepOf", { step: layer.name, count }) : words("final");
      this.show(layer ? steps.indexOf(layer) : steps.length, text);
    };
    for (const what of ["content", "view"]) {
      state.addEventListener(what, update, { signal: options.signal });
    }
    update();
  }
}
