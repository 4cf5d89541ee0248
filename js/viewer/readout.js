/** Lists the values of all signals under the pointer, in their units and as percentiles. */

import { Frame, make, write } from "./dom.js";
import { number, percentile } from "./format.js";

/** The values at the probe; without a probe, the scores of the selected image. */
export class Readout {
  #state;
  #translate;
  #place = make("span.bd-place");
  #note = make("span.bd-note");
  #rows = make("div.bd-rows", { role: "table" });
  #spoken = make("div.bd-spoken", { "aria-live": "polite" });
  #cells = [];
  #frame = new Frame(() => this.#update());

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, translate, { signal }) {
    this.#state = state;
    this.#translate = translate;
    const caption = make("div.bd-caption", {}, [this.#place, this.#note]);
    this.element = make("div.bd-readout", {}, [caption, this.#rows, this.#spoken]);
    state.addEventListener("content", () => this.#build(), { signal });
    state.addEventListener("view", () => this.#build(), { signal });
    state.addEventListener("probe", () => this.#frame.request(), { signal });
    signal.addEventListener("abort", () => this.#frame.cancel());
    this.#build();
  }

  #build() {
    const { payload } = this.#state;
    this.element.hidden = !payload;
    if (!payload) return;
    const step = this.#state.stepLayer;
    const layers = [...payload.signals, ...(step ? [step] : [])];
    if (layers.some((layer, index) => this.#cells[index]?.layer !== layer)) this.#cells = [];
    if (this.#cells.length !== layers.length) {
      this.#cells = layers.map((layer) => this.#row(layer));
      this.#rows.replaceChildren(...this.#cells.map(({ row }) => row));
    }
    const { layer: shown } = this.#state;
    for (const { layer, row } of this.#cells) row.classList.toggle("bd-shown", layer === shown);
    this.#update();
  }

  #row(layer) {
    const isStep = this.#state.payload.steps.includes(layer);
    const name = isStep ? "undecided" : layer.name;
    const value = make("span.bd-number", { role: "cell" });
    const place = make("span.bd-number.bd-percentile", { role: "cell" });
    const bar = make("i");
    const row = make("div.bd-row", { role: "row", title: this.#translate(`${name}Help`) }, [
      make("span.bd-name", { role: "rowheader", text: this.#translate(name) }),
      value,
      make("span.bd-unit", { role: "cell", text: this.#translate(layer.unit) }),
      make("span.bd-meter", { "aria-hidden": "true" }, [bar]),
      place,
    ]);
    return { layer, row, value, place, bar };
  }

  #update() {
    const { payload, image, probe } = this.#state;
    if (!payload) return;
    const { width, height, batch } = payload;
    const x = probe && Math.floor(probe.u * width);
    const y = probe && Math.floor(probe.v * height);
    write(
      this.#place,
      batch > 1 ? this.#translate("image", { image: image + 1, count: batch }) : "",
    );
    write(this.#note, probe ? this.#translate("pixel", { x, y }) : this.#translate("wholeImage"));
    for (const { layer, value, place, bar } of this.#cells) {
      const found = probe
        ? layer.sample(image, (x + 0.5) / width, (y + 0.5) / height)
        : layer.scores[image];
      const rank = layer.percentileOf(image, found);
      write(value, number(found));
      write(place, probe ? `p${percentile(rank)}` : "");
      bar.style.transform = `scaleX(${probe ? rank / 100 : 0})`;
    }
    if (this.#state.aloud) write(this.#spoken, this.#sentence());
  }

  /** The position and all values in a sentence, for screen readers. */
  #sentence() {
    const values = this.#cells.map(({ row }) =>
      [...row.children].map((cell) => cell.textContent).filter(Boolean).join(" "),
    );
    return [this.#note.textContent, ...values].join("; ");
  }
}
