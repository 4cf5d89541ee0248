/** Shows the images of a batch in a strip, from sure to unsure, with their scores. */

import { Frame, make, mark, write } from "./dom.js";
import { number } from "./format.js";

const SIDE = 112;

/** The strip of thumbnails; a click selects an image. */
export class Thumbnails {
  #state;
  #translate;
  #strip = make("div.bd-strip");
  #tiles = [];
  #seen = "";
  #drawn = "";
  #frame = new Frame(() => this.#draw());

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, translate, { signal }) {
    this.#state = state;
    this.#translate = translate;
    const ends = make("div.bd-ends", {}, [
      make("span", { text: translate("sure") }),
      make("i"),
      make("span", { text: translate("unsure") }),
    ]);
    this.element = make("div.bd-thumbnails", {}, [this.#strip, ends]);
    this.#strip.addEventListener(
      "click",
      (event) => {
        const tile = event.target.closest("button");
        if (tile) state.select(Number(tile.dataset.image));
      },
      { signal },
    );
    state.addEventListener("content", () => this.#build(), { signal });
    state.addEventListener("view", () => this.#update(), { signal });
    signal.addEventListener("abort", () => this.#frame.cancel());
    this.#build();
  }

  async #build() {
    const { payload, images } = this.#state;
    this.element.hidden = !payload || payload.batch < 2;
    if (this.element.hidden) return;
    const factor = SIDE / Math.max(payload.width, payload.height);
    this.#tiles = Array.from({ length: payload.batch }, (_, image) => {
      const canvas = make("canvas", {
        width: Math.max(1, Math.round(payload.width * factor)),
        height: Math.max(1, Math.round(payload.height * factor)),
      });
      const score = make("span.bd-number");
      const tile = make("button.bd-tile", { type: "button", "data-image": image }, [canvas, score]);
      return { image, tile, canvas, score, picture: null };
    });
    this.#strip.replaceChildren();
    this.#seen = this.#drawn = "";
    this.#update();
    // One after another, since decoding a batch of large images at once takes too much memory.
    for (const tile of this.#tiles) {
      tile.picture = await images.thumbnail(tile.image, SIDE).catch(() => null);
      if (images !== this.#state.images) return;
      this.#frame.request();
    }
  }

  #update() {
    const { payload } = this.#state;
    if (!payload || payload.batch < 2) return;
    const { order, layer, image, settings, alone, limits } = this.#state;
    const tiles = order.map((index) => this.#tiles[index]);
    const current = [...this.#strip.children];
    if (tiles.some(({ tile }, place) => current[place] !== tile)) {
      this.#strip.replaceChildren(...tiles.map(({ tile }) => tile));
    }
    for (const tile of this.#tiles) {
      const name = this.#translate("image", { image: tile.image + 1, count: payload.batch });
      const score = number(layer.scores[tile.image]);
      write(tile.score, score);
      mark(tile.tile, { title: `${name}: ${score}`, "aria-pressed": tile.image === image });
    }
    const seen = [image, ...order].join();
    if (seen !== this.#seen) this.#reveal(this.#tiles[image].tile);
    this.#seen = seen;
    const { display, opacity } = settings;
    const drawn = [layer.name, display, opacity, alone, settings.colormap, ...limits].join();
    if (drawn !== this.#drawn) this.#frame.request();
    this.#drawn = drawn;
  }

  /** Scrolls the strip, but not the page, to a tile. */
  #reveal(tile) {
    const strip = this.#strip;
    const start = tile.offsetLeft - strip.offsetLeft;
    const end = start + tile.offsetWidth - strip.clientWidth;
    strip.scrollLeft = Math.min(Math.max(strip.scrollLeft, end), start);
  }

  #draw() {
    const state = this.#state;
    if (!state.payload) return;
    const { settings, alone } = state;
    for (const { image, canvas, picture } of this.#tiles) {
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
      if (picture && (alone || settings.display === "contour")) continue;
      context.globalAlpha = picture && settings.display !== "heatmap" ? settings.opacity : 1;
      context.drawImage(state.heat(image), 0, 0, canvas.width, canvas.height);
      context.globalAlpha = 1;
    }
  }
}
