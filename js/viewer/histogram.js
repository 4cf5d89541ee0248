/** Pixels by value in the colours of the heat, with the threshold of the mask as a handle. */

import { Frame, make, prepareCanvas } from "./dom.js";
import { number, percentile } from "./format.js";
import { cssColor } from "./heat.js";

const RAMP = 4;
const TEXT = 15;
const STEP = 0.5;
const LARGE_STEP = 5;

export class Histogram {
  #state;
  #words;
  #canvas = make("canvas.bd-canvas");
  #label = make("div.bd-threshold-label");
  #frame = new Frame(() => this.#draw());

  constructor(state, words, { signal }) {
    this.#state = state;
    this.#words = words;
    this.element = make(
      "div.bd-histogram",
      {
        ...{ tabindex: "0", role: "slider", title: words("thresholdHelp") },
        ...{ "aria-label": words("threshold"), "aria-valuemin": 0, "aria-valuemax": 100 },
      },
      [this.#canvas, this.#label],
    );
    for (const what of ["content", "view", "probe"]) {
      state.addEventListener(what, () => this.#frame.request(), { signal });
    }
    const size = new ResizeObserver(() => this.#frame.request());
    size.observe(this.element);
    signal.addEventListener("abort", () => {
      size.disconnect();
      this.#frame.cancel();
    });
    this.#listen(signal);
    this.#draw();
  }

  #listen(signal) {
    const { element } = this;
    element.addEventListener(
      "pointerdown",
      (event) => {
        if (event.button !== 0 || !this.#state.payload) return;
        element.setPointerCapture(event.pointerId);
        this.#drag(event);
      },
      { signal },
    );
    element.addEventListener(
      "pointermove",
      (event) => {
        if (element.hasPointerCapture(event.pointerId)) this.#drag(event);
      },
      { signal },
    );
    element.addEventListener("keydown", (event) => this.#onKey(event), { signal });
  }

  #drag(event) {
    const box = this.element.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const { low, high } = this.#axis();
    this.#state.moveThreshold(low + share * (high - low));
  }

  #onKey(event) {
    const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!direction || !this.#state.payload) return;
    event.preventDefault();
    event.stopPropagation();
    const step = event.shiftKey ? LARGE_STEP : STEP;
    this.#state.moveThresholdTo(this.#state.thresholdPercentile + direction * step);
  }

  #axis() {
    return this.#state.layer.histogramOf(this.#state.image);
  }

  #draw() {
    this.element.hidden = !this.#state.payload;
    if (!this.#state.payload) return;
    const surface = prepareCanvas(this.#canvas);
    if (!surface) return;
    const { context, width, height } = surface;
    const style = getComputedStyle(this.element);
    const axis = this.#axis();
    const place = (value) => (width * (value - axis.low)) / (axis.high - axis.low);
    this.#drawBars(context, width, height, axis, style);
    const at = Math.min(Math.max(place(this.#state.threshold), 0), width);
    this.#drawProbe(context, height, place, style);
    this.#drawHandle(context, at, height, style);
    this.#placeLabel(at, width);
  }

  #drawBars(context, width, height, { low, high, shares }, style) {
    const { colors, limits, threshold } = this.#state;
    const base = height - RAMP;
    // Square roots: most pixels are sure, and the few that are not must show as well.
    const tallest = Math.sqrt(Math.max(...shares)) || 1;
    const bar = width / shares.length;
    const level = (value) => (value - limits[0]) / (limits[1] - limits[0] || 1);
    for (let bin = 0; bin < shares.length; bin++) {
      const value = low + ((high - low) * (bin + 0.5)) / shares.length;
      const tall = ((base - TEXT) * Math.sqrt(shares[bin])) / tallest;
      context.globalAlpha = value > threshold ? 1 : 0.55;
      context.fillStyle = style.getPropertyValue("--bd-bar");
      context.fillRect(bin * bar, base - tall, Math.max(bar - 0.5, 0.5), tall);
      context.globalAlpha = 1;
      context.fillStyle = cssColor(colors, level(value));
      context.fillRect(bin * bar, base, bar + 0.5, RAMP);
    }
  }

  #drawHandle(context, at, height, style) {
    const color = style.getPropertyValue("--bd-ink");
    const x = Math.min(Math.max(at, 1), context.canvas.clientWidth - 1);
    context.fillStyle = color;
    context.fillRect(x - 0.75, TEXT, 1.5, height - TEXT);
    context.beginPath();
    context.roundRect(x - 4, (height + TEXT) / 2 - 9, 8, 16, 4);
    context.fill();
    context.lineWidth = 1.5;
    context.strokeStyle = style.getPropertyValue("--bd-ground");
    context.stroke();
  }

  /** Where the pixel under the pointer stands among the others. */
  #drawProbe(context, height, place, style) {
    const { probe, layer, image } = this.#state;
    if (!probe) return;
    const x = place(layer.sample(image, probe.u, probe.v));
    context.fillStyle = style.getPropertyValue("--bd-accent");
    context.beginPath();
    context.moveTo(x, height - RAMP);
    context.lineTo(x - 4, height - RAMP - 7);
    context.lineTo(x + 4, height - RAMP - 7);
    context.fill();
  }

  #placeLabel(at, width) {
    const { threshold, thresholdPercentile, maskedShare } = this.#state;
    const place = percentile(thresholdPercentile);
    const share = percentile(100 * maskedShare);
    const masked = this.#words("masked", { share });
    this.#label.textContent = `${number(threshold)} · p${place} · ${masked}`;
    const half = this.#label.offsetWidth / 2;
    const x = Math.min(Math.max(at, half), Math.max(width - half, half));
    this.#label.style.transform = `translateX(${x - half}px)`;
    this.element.setAttribute("aria-valuenow", place);
    this.element.setAttribute("aria-valuetext", this.#label.textContent);
  }
}
