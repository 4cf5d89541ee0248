/**
 * Holds what the viewer shows: the values of the last run, the node's settings, the selected image.
 * Panels listen to "view" (something has to be drawn again), "probe" (the pointer moved) and
 * "content" (values of another run, or a message in their place).
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
import { paintHeat } from "./heat.js";
import { Images } from "./images.js";
import { signedMask } from "./mask.js";
import { outline } from "./outline.js";
import { upsample } from "./upsample.js";

/**
 * Orders the images of a batch from sure to unsure; equal scores keep their order.
 * @param {number[]} scores of the images
 * @returns {number[]} indices of the images
 */
export function fromSureToUnsure(scores) {
  return scores.map((_, image) => image).sort((a, b) => scores[a] - scores[b] || a - b);
}

/** The state that all parts of one viewer share, and everything that is computed from it. */
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

  /** @param {import("./node_settings.js").NodeSettings} settings */
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

  /** Changes settings while a slider is dragged; `settle` ends the drag. */
  drag(changes) {
    this.#settings.writeSoon(changes);
  }

  /** Ends a drag: the node gets the last values. */
  settle() {
    this.#settings.settle();
  }

  /**
   * Shows the values of a run.
   * @param {import("./payload.js").Payload} payload
   * @param {Images} images
   */
  show(payload, images) {
    this.payload = payload;
    this.images = images;
    this.message = "";
    this.image = Math.min(this.image, payload.batch - 1);
    this.#made.clear();
    this.#tell("content");
  }

  /**
   * Shows a message in place of values.
   * @param {string} message key of the text
   */
  showMessage(message) {
    this.payload = null;
    this.message = message;
    this.#tell("content");
  }

  /** Selects an image of the batch, if there is one with this index. */
  select(image) {
    if (image !== this.image && this.payload && image >= 0 && image < this.payload.batch) {
      this.image = image;
      this.#tell("view");
    }
  }

  /** Shows the image without heat and outline, or with them again. */
  showAlone(alone) {
    if (alone !== this.alone) {
      this.alone = alone;
      this.#tell("view");
    }
  }

  /**
   * Moves the probe, whose values the read-out shows.
   * @param {{u: number, v: number} | null} place in [0, 1] of the image
   * @param {boolean} aloud whether screen readers read the values out
   */
  pointAt(place, aloud = false) {
    this.probe = place;
    this.aloud = aloud;
    this.#tell("probe");
  }

  /** Draws again after settings changed. */
  refresh() {
    this.#tell("view");
  }

  /** Whether the run computed a signal. */
  has(name) {
    return name === "artifact" || this.payload.signals.some((layer) => layer.name === name);
  }

  /** @returns {import("./layer.js").Layer} the layer shown: a step of the run, or a signal */
  get layer() {
    return this.stepLayer ?? this.signalLayer;
  }

  /** The layer of the chosen signal; `artifact` is the signal that it stands for. */
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

  /** The images from sure to unsure, by their scores in the layer shown. */
  get order() {
    return fromSureToUnsure(this.layer.scores);
  }

  /** The values of the selected image with the first and the last colour. */
  get limits() {
    return this.limitsOf(this.image);
  }

  /** The values of an image with the first and the last colour. */
  limitsOf(image) {
    const { scale, scale_low: low, scale_high: high } = this.settings;
    return this.layer.limitsOf(image, scale, [low, high]);
  }

  /** @returns {Uint8Array} the chosen colormap, 256 RGB triples */
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

  /** @returns {HTMLCanvasElement} the heat of an image */
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
      const smallest = area * scale * scale;
      const result = signedMask(grid, threshold, grow * scale, smallest, 1 / scale);
      let inside = 0;
      for (const value of result.values) if (value > 0) inside++;
      return { rings: outline(result), share: inside / result.values.length };
    });
  }

  #grid(image) {
    const { layer } = this;
    return this.#remember(`grid ${image}`, layer.name, () =>
      upsample(layer.field(image), layer.height, layer.width),
    );
  }

  /** Returns the result for this key, computed now if needed; keeps one result per name. */
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
