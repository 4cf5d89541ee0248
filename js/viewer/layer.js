/** Decodes the maps of one signal, or of one step of the run, and answers questions about them. */

/** The maps of a batch in their unit, with their percentiles. High is unsure or suspect. */
export class Layer {
  #codes;
  #table;
  #counts;
  #fields = new Map();

  /**
   * @param {object} description the layer's entry in the header
   * @param {ArrayBuffer} buffer the whole file
   * @param {number} body where its arrays begin
   */
  constructor(description, buffer, body) {
    Object.assign(this, description);
    const batch = description.low.length;
    const { codes, height, width, percentiles, levels, histogram, bins } = description;
    this.#codes = new Uint16Array(buffer, body + codes, batch * height * width);
    this.#table = new Float32Array(buffer, body + percentiles, batch * levels);
    this.#counts = bins ? new Uint32Array(buffer, body + histogram, batch * bins) : null;
  }

  /**
   * The map of one image.
   * @param {number} image
   * @returns {Float32Array} values in the unit of the layer, row by row
   */
  field(image) {
    let field = this.#fields.get(image);
    if (!field) {
      const size = this.height * this.width;
      const codes = this.#codes.subarray(image * size, (image + 1) * size);
      const [low, step] = [this.low[image], this.step[image]];
      field = Float32Array.from(codes, (code) => low + step * code);
      this.#fields.set(image, field);
    }
    return field;
  }

  /**
   * The value at a point of the image, interpolated between pixels.
   * @param {number} image
   * @param {number} u from left to right, in [0, 1]
   * @param {number} v from top to bottom, in [0, 1]
   * @returns {number}
   */
  sample(image, u, v) {
    const { height, width } = this;
    const field = this.field(image);
    const x = Math.min(Math.max(u * width - 0.5, 0), width - 1);
    const y = Math.min(Math.max(v * height - 0.5, 0), height - 1);
    const [x0, y0] = [Math.floor(x), Math.floor(y)];
    const [x1, y1] = [Math.min(x0 + 1, width - 1), Math.min(y0 + 1, height - 1)];
    const mix = (a, b, t) => a + (b - a) * t;
    const top = mix(field[y0 * width + x0], field[y0 * width + x1], x - x0);
    const bottom = mix(field[y1 * width + x0], field[y1 * width + x1], x - x0);
    return mix(top, bottom, y - y0);
  }

  /**
   * The value at a percentile of the pixels of an image.
   * @param {number} image
   * @param {number} percentile in [0, 100]
   * @returns {number}
   */
  valueAt(image, percentile) {
    const table = this.#percentiles(image);
    const place = (Math.min(Math.max(percentile, 0), 100) / 100) * (table.length - 1);
    const below = Math.min(Math.floor(place), table.length - 2);
    return table[below] + (table[below + 1] - table[below]) * (place - below);
  }

  /**
   * The percentile of a value among the pixels of an image; the inverse of `valueAt`.
   * @param {number} image
   * @param {number} value
   * @returns {number} in [0, 100]
   */
  percentileOf(image, value) {
    const table = this.#percentiles(image);
    if (value <= table[0]) return 0;
    let [low, high] = [0, table.length - 1];
    if (value >= table[high]) return 100;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (table[middle] <= value) low = middle;
      else high = middle;
    }
    const share = (value - table[low]) / (table[high] - table[low]);
    return (100 * (low + share)) / (table.length - 1);
  }

  /**
   * The values of an image with the first and the last colour.
   * @param {number} image
   * @param {"image" | "batch" | "fixed"} scale
   * @param {[number, number]} fixed limits of the scale `fixed`
   * @returns {[number, number]}
   */
  limitsOf(image, scale, fixed) {
    if (scale === "fixed" && fixed[0] < fixed[1]) return fixed;
    return scale === "batch" ? this.batch_limits : this.limits[image];
  }

  /**
   * The histogram of an image; the last bin also counts the pixels above `high`.
   * @param {number} image
   * @returns {{low: number, high: number, shares: Float64Array}}
   */
  histogramOf(image) {
    if (this.#counts) {
      const counts = this.#counts.subarray(image * this.bins, (image + 1) * this.bins);
      const total = counts.reduce((sum, count) => sum + count, 0);
      const [low, high] = this.edges[image];
      return spread(low, high, Float64Array.from(counts, (count) => count / total));
    }
    const bins = 48;
    const [low, high] = [this.valueAt(image, 0), this.valueAt(image, 99.9)];
    const edge = (bin) => this.percentileOf(image, low + ((high - low) * bin) / bins);
    const share = (_, bin) => ((bin === bins - 1 ? 100 : edge(bin + 1)) - edge(bin)) / 100;
    return spread(low, high, Float64Array.from({ length: bins }, share));
  }

  #percentiles(image) {
    return this.#table.subarray(image * this.levels, (image + 1) * this.levels);
  }
}

/** Widens the axis of a constant map, which would have no extent. */
function spread(low, high, shares) {
  return high > low ? { low, high, shares } : { low, high: low + 1, shares };
}
