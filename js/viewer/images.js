/** The plain images of a batch: thumbnails of all, in full size only the last one looked at. */
export class Images {
  #urls;
  #thumbnails = new Map();
  #full = { image: -1, picture: null };

  /** @param {string[]} urls one for each image, or none */
  constructor(urls) {
    this.#urls = urls;
  }

  get count() {
    return this.#urls.length;
  }

  /** @returns {string | null} */
  url(image) {
    return this.#urls[image] ?? null;
  }

  /** @returns {Promise<HTMLImageElement | null>} */
  full(image) {
    if (!this.count) return Promise.resolve(null);
    if (this.#full.image !== image) this.#full = { image, picture: load(this.#urls[image]) };
    return this.#full.picture;
  }

  /** @returns {Promise<HTMLCanvasElement | null>} with the longer side `side` */
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
