/**
 * What the viewer shows: the values of the last run, the node's settings, the image looked at.
 * Panels listen to "view" (something else is to be drawn), "probe" (the pointer moved) and
 * "content" (another run's values, or a message instead).
 *
 * @typedef {object} Settings the node's widgets, by the names of its inputs
 * @property {string} signal
 * @property {string} display
 * @property {string} colormap
 * @property {"image" | "batch" | "fixed"} scale
 * @property {number} scale_low
 * @property {number} scale_high
 * @property {number} opacity
 * @property {"percentile" | "value"} threshold_by
 * @property {number} threshold
 * @property {number} threshold_value
 * @property {number} grow
 * @property {number} minimum_area
 * @property {number} step 0 is the signal itself
 */

import { tidy } from "./format.js";
import { refine } from "./grid.js";
import { paintHeat } from "./heat.js";
import { Images } from "./images.js";
import { fromSureToUnsure } from "./order.js";
import { outline } from "./outline.js";
import { region } from "./region.js";

export class ViewerState extends EventTarget {
  payload = null;
  images = new Images([]);
  message = "empty";
  image = 0;
  alone = false;
  probe = null;
  aloud = false;
  #settings;
  #made = new Map();

  /** @param {import("./settings.js").NodeSettings} settings */
  constructor(settings) {
    super();
    this.#settings = settings;
  }

  /** @returns {Settings} */
  get settings() {
    return this.#settings.values;
  }

  /** Changes settings of the node, so that its next run uses them. */
  set(changes) {
    this.#settings.write(changes);
  }

  /** The same while a slider is dragged; `settle` ends it. */
  drag(changes) {
    this.#settings.writeSoon(changes);
  }

  settle() {
    this.#settings.settle();
  }

  show(payload, images) {
    this.payload = payload;
    this.images = images;
    this.message = "";
    this.image = Math.min(this.image, payload.batch - 1);
    this.#made.clear();
    this.#tell("content");
  }

  showMessage(message) {
    this.payload = null;
    this.message = message;
    this.#tell("content");
  }

  select(image) {
    if (image !== this.image && this.payload && image >= 0 && image < this.payload.batch) {
      this.image = image;
      this.#tell("view");
    }
  }

  showAlone(alone) {
    if (alone !== this.alone) {
      this.alone = alone;
      this.#tell("view");
    }
  }

  /**
   * @param {{u: number, v: number} | null} place in [0, 1] of the image
   * @param {boolean} aloud whether screen readers are to say what is there
   */
  pointAt(place, aloud = false) {
    this.probe = place;
    this.aloud = aloud;
    this.#tell("probe");
  }

  refresh() {
    this.#tell("view");
  }

  /** Whether the run computed a signal. */
  has(name) {
    return name === "artifact" || this.payload.signals.some((layer) => layer.name === name);
  }

  /** @returns {import("./layer.js").Layer} what is shown: a step of the run, or a signal */
  get layer() {
    return this.stepLayer ?? this.signalLayer;
  }

  get signalLayer() {
    const { signals, artifact } = this.payload;
    const name = this.settings.signal === "artifact" ? artifact : this.settings.signal;
    return signals.find((layer) => layer.name === name) ?? signals[0];
  }

  /** The recorded step that is nearest to the one asked for, or null for the signal itself. */
  get stepLayer() {
    const { step } = this.settings;
    const { steps } = this.payload;
    if (!step || !steps.length) return null;
    const distance = (layer) => Math.abs(Number(layer.name) - step);
    return steps.reduce((best, layer) => (distance(layer) < distance(best) ? layer : best));
  }

  get order() {
    return fromSureToUnsure(this.layer.scores);
  }

  get limits() {
    return this.limitsOf(this.image);
  }

  limitsOf(image) {
    const { scale, scale_low: low, scale_high: high } = this.settings;
    return this.layer.limitsOf(image, scale, [low, high]);
  }

  get colors() {
    const { colormaps } = this.payload;
    return colormaps[this.settings.colormap] ?? Object.values(colormaps)[0];
  }

  /** Value above which a pixel of the image belongs to the mask. */
  get threshold() {
    const { threshold_by: by, threshold, threshold_value: value } = this.settings;
    return by === "value" ? value : this.layer.valueAt(this.image, threshold);
  }

  /** The threshold as percentile of the image. */
  get thresholdPercentile() {
    const { threshold_by: by, threshold, threshold_value: value } = this.settings;
    return by === "value" ? this.layer.percentileOf(this.image, value) : threshold;
  }

  /** Drags the threshold to a value of the image. */
  dragThreshold(value) {
    if (this.settings.threshold_by === "value") this.drag({ threshold_value: tidy(value) });
    else this.drag(this.#thresholdAt(this.layer.percentileOf(this.image, value)));
  }

  /** Moves the threshold to a percentile of the image. */
  moveThresholdTo(percentile) {
    this.set(this.#thresholdAt(percentile));
  }

  #thresholdAt(percentile) {
    const inside = Math.min(Math.max(percentile, 0), 100);
    return this.settings.threshold_by === "percentile"
      ? { threshold: Math.round(10 * inside) / 10 }
      : { threshold_value: tidy(this.layer.valueAt(this.image, inside)) };
  }

  /** A canvas with the heat of an image. */
  heat(image = this.image) {
    const { layer, settings } = this;
    const limits = this.limitsOf(image);
    const opaque = settings.display === "heatmap" || !this.images.count;
    const key = [layer.name, settings.colormap, ...limits, opaque].join();
    return this.#remember(`heat ${image}`, key, () => {
      const grid = this.#grid(image);
      const canvas = document.createElement("canvas");
      canvas.width = grid.width;
      canvas.height = grid.height;
      const pixels = paintHeat(grid, limits, this.colors, opaque);
      const picture = new ImageData(pixels, grid.width, grid.height);
      canvas.getContext("2d").putImageData(picture, 0, 0);
      return canvas;
    });
  }

  /** The outline of the mask, rings of points x, y in [0, 1] of the image. */
  get outline() {
    return this.#maskOf().rings;
  }

  /** The share of the image that the mask covers, in [0, 1]. */
  get maskedShare() {
    return this.#maskOf().share;
  }

  #maskOf() {
    const { layer, image, threshold } = this;
    const { grow, minimum_area: area } = this.settings;
    const key = [layer.name, image, threshold, grow, area].join();
    return this.#remember("mask", key, () => {
      const grid = this.#grid(image);
      const scale = grid.width / this.payload.width;
      const result = region(grid, threshold, grow * scale, area * scale * scale);
      let inside = 0;
      for (const value of result.values) if (value > 0) inside++;
      return { rings: outline(result), share: inside / result.values.length };
    });
  }

  #grid(image) {
    const { layer } = this;
    return this.#remember(`grid ${image}`, layer.name, () =>
      refine(layer.field(image), layer.height, layer.width),
    );
  }

  /** What was made for this key, or made now; one result a name is kept. */
  #remember(name, key, create) {
    const known = this.#made.get(name);
    if (known?.key === key) return known.result;
    const result = create();
    this.#made.set(name, { key, result });
    return result;
  }

  #tell(what) {
    this.dispatchEvent(new Event(what));
  }
}
