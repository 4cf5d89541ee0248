/** Draws the histogram of the pixel values, with the threshold of the mask as a handle to drag. */

import { Frame, make, mark, write } from "./dom.js";
import { number, percentile } from "./format.js";
import { cssColor } from "./heat.js";

const COLORS = 24;
const STEP = 0.5;
const LARGE_STEP = 5;
const SVG = "http://www.w3.org/2000/svg";

/**
 * The histogram of the selected image, coloured as the heat.
 *
 * While the pointer or the threshold moves nothing is drawn: their marks are in tracks as wide as
 * the histogram, which are shifted by a percentage of their own width.
 */
export class Histogram {
  #state;
  #translate;
  #bars = document.createElementNS(SVG, "path");
  #figure = document.createElementNS(SVG, "svg");
  #ramp = make("div.bd-ramp");
  #probe = make("div.bd-track", { hidden: "" }, [make("i.bd-mark")]);
  #handle = make("div.bd-track", {}, [make("i.bd-handle")]);
  #label = make("span");
  #labelTrack = make("div.bd-track.bd-threshold-label", {}, [this.#label]);
  #drawn = { key: "", layer: null };
  #frame = new Frame(() => this.#update());
  #probeFrame = new Frame(() => this.#placeProbe());

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, translate, { signal }) {
    this.#state = state;
    this.#translate = translate;
    this.#figure.append(this.#bars);
    this.#figure.setAttribute("preserveAspectRatio", "none");
    this.#figure.setAttribute("aria-hidden", "true");
    this.#figure.classList.add("bd-bars");
    this.element = make(
      "div.bd-histogram",
      {
        ...{ tabindex: "0", role: "slider", title: translate("thresholdHelp") },
        ...{ "aria-label": translate("threshold"), "aria-valuemin": 0, "aria-valuemax": 100 },
      },
      [this.#figure, this.#ramp, this.#probe, this.#handle, this.#labelTrack],
    );
    for (const what of ["content", "view"]) {
      state.addEventListener(what, () => this.#frame.request(), { signal });
    }
    state.addEventListener("probe", () => this.#probeFrame.request(), { signal });
    signal.addEventListener("abort", () => {
      this.#frame.cancel();
      this.#probeFrame.cancel();
    });
    this.#listen(signal);
    this.#update();
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
    for (const type of ["pointerup", "pointercancel"]) {
      element.addEventListener(type, () => this.#state.settle(), { signal });
    }
    element.addEventListener("keydown", (event) => this.#onKey(event), { signal });
  }

  #drag(event) {
    const box = this.element.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const { low, high } = this.#axis();
    this.#state.dragThreshold(low + share * (high - low));
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#state.payload) return;
    const percentile = this.#state.thresholdPercentile;
    const target = { Home: 0, End: 100 }[event.key] ?? percentile + stepOf(event);
    if (target === percentile) return;
    event.preventDefault();
    event.stopPropagation();
    this.#state.moveThresholdTo(target);
  }

  #axis() {
    return this.#state.layer.histogramOf(this.#state.image);
  }

  #update() {
    const { payload } = this.#state;
    this.element.hidden = !payload;
    if (!payload) return;
    this.#drawBars();
    const { threshold, thresholdPercentile, maskedShare } = this.#state;
    const at = `${100 * this.#place(threshold)}%`;
    this.element.style.setProperty("--bd-threshold", at);
    this.#handle.style.transform = this.#labelTrack.style.transform = `translateX(${at})`;
    this.#label.style.transform = `translateX(-${at})`;
    const place = percentile(thresholdPercentile);
    const masked = this.#translate("masked", { share: percentile(100 * maskedShare) });
    const text = `${number(threshold)} · p${place} · ${masked}`;
    write(this.#label, text);
    mark(this.element, { "aria-valuenow": place, "aria-valuetext": text });
    this.#placeProbe();
  }

  /** The position of a value between the ends of the axis, in [0, 1]. */
  #place(value) {
    const { low, high } = this.#axis();
    return Math.min(Math.max((value - low) / (high - low), 0), 1);
  }

  #drawBars() {
    const { layer, image, limits, settings, colors } = this.#state;
    const key = [image, settings.colormap, ...limits].join();
    if (key === this.#drawn.key && layer === this.#drawn.layer) return;
    this.#drawn = { key, layer };
    const { low, high, shares } = this.#axis();
    // Heights are square roots, so that the few unsure pixels show beside the many sure ones.
    const tallest = Math.sqrt(Math.max(...shares)) || 1;
    const bar = (share, bin) => `M${bin} 1V${1 - Math.sqrt(share) / tallest}h.86V1z`;
    this.#figure.setAttribute("viewBox", `0 0 ${shares.length} 1`);
    this.#bars.setAttribute("d", [...shares].map(bar).join(""));
    const stops = Array.from({ length: COLORS + 1 }, (_, stop) => {
      const value = low + ((high - low) * stop) / COLORS;
      return cssColor(colors, (value - limits[0]) / (limits[1] - limits[0] || 1));
    });
    this.#ramp.style.background = `linear-gradient(to right, ${stops.join()})`;
  }

  /** Marks the value of the pixel under the pointer. */
  #placeProbe() {
    const { probe, payload } = this.#state;
    this.#probe.hidden = !probe || !payload;
    if (this.#probe.hidden) return;
    const { layer, image } = this.#state;
    const at = 100 * this.#place(layer.sample(image, probe.u, probe.v));
    this.#probe.style.transform = `translateX(${at}%)`;
  }
}

/** The number of percentiles by which a key moves the threshold. */
function stepOf({ key, shiftKey }) {
  const arrow = shiftKey ? LARGE_STEP : STEP;
  const steps = { ArrowLeft: -arrow, ArrowDown: -arrow, ArrowRight: arrow, ArrowUp: arrow };
  return { ...steps, PageDown: -LARGE_STEP, PageUp: LARGE_STEP }[key] ?? 0;
}
