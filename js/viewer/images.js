/** Loads the images of a batch: thumbnails of all, and in full size the last one asked for. */

/** The images of one batch; memory holds thumbnails and a single image in full size. */
export class Images {
  #urls;
  #thumbnails = new Map();
  #full = { image: -1, picture: null };

  /** @param {string[]} urls one for each image, or none */
  constructor(urls) {
    this.#urls = urls;
  }

  /** @returns {number} how many images there are */
  get count() {
    return this.#urls.length;
  }

  /**
   * The address of an image.
   * @param {number} image
   * @returns {string | null}
   */
  url(image) {
    return this.#urls[image] ?? null;
  }

  /**
   * An image in full size, decoded.
   * @param {number} image
   * @returns {Promise<HTMLImageElement | null>} null where there are no images
   */
  full(image) {
    if (!this.count) return Promise.resolve(null);
    if (this.#full.image !== image) this.#full = { image, picture: load(this.#urls[image]) };
    return this.#full.picture;
  }

  /**
   * A smaller copy of an image.
   * @param {number} image
   * @param {number} side its longer side, in pixels
   * @returns {Promise<HTMLCanvasElement | null>} null where there are no images
   */
  thumbnail(image, side) {
    if (!this.count) return Promise.resolve(null);
    if (!this.#thumbnails.has(image)) {
      this.#thumbnails.set(image, this.full(image).then((picture) => shrink(picture, side)));
    }
    return this.#thumbnails.get(image);
  }
}

async function load(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  return picture;
}

function shrink(picture, side) {
  const factor = side / Math.max(picture.naturalWidth, picture.naturalHeight);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.naturalWidth * factor));
  canvas.height = Math.max(1, Math.round(picture.naturalHeight * factor));
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = factor < 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}
