/** The picture: image, heat over it, outline of the mask, and the probe under the pointer. */

import { Frame, make, prepareCanvas } from "./dom.js";

const SMOOTH_BELOW = 3;
const LARGEST_ZOOM = 64;
const PROBE_STEPS = 64;

export class Stage {
  #state;
  #words;
  #canvas = make("canvas.bd-canvas");
  #probe = make("div.bd-probe", { hidden: "" });
  #message = make("div.bd-message");
  #frame = new Frame(() => this.#draw());
  #picture = null;
  #zoom = 1;
  #center = [0.5, 0.5];
  #drag = null;

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {(key: string, values?: object) => string} words
   * @param {{zoomable: boolean, signal: AbortSignal}} options
   */
  constructor(state, words, { zoomable, signal }) {
    this.#state = state;
    this.#words = words;
    this.element = make(
      "div.bd-stage",
      { tabindex: "0", role: "img", title: words(zoomable ? "stageLarge" : "stage") },
      [this.#canvas, this.#probe, this.#message],
    );
    state.addEventListener("content", () => this.#load(), { signal });
    state.addEventListener("view", () => this.#load(), { signal });
    state.addEventListener("probe", () => this.#placeProbe(), { signal });
    const size = new ResizeObserver(() => this.redraw());
    size.observe(this.element);
    signal.addEventListener("abort", () => {
      size.disconnect();
      this.#frame.cancel();
    });
    this.#listen(zoomable, signal);
    this.#load();
  }

  redraw() {
    this.#frame.request();
  }

  /** Shows the whole image. */
  fit() {
    this.#zoom = 1;
    this.#center = [0.5, 0.5];
    this.redraw();
  }

  /** Zooms by a factor; the point at (x, y) of the stage stays where it is. */
  zoomBy(factor, x = this.element.clientWidth / 2, y = this.element.clientHeight / 2) {
    const before = this.#area();
    if (!before) return;
    const [u, v] = [(x - before.x) / before.width, (y - before.y) / before.height];
    this.#zoom = Math.min(Math.max(this.#zoom * factor, 1), LARGEST_ZOOM);
    const after = this.#area();
    this.#move(after.x + u * after.width - x, after.y + v * after.height - y);
  }

  /** Moves the probe by steps over the image, from its middle where there is none yet. */
  stepProbe(dx, dy) {
    const { u, v } = this.#state.probe ?? { u: 0.5, v: 0.5 };
    const inside = (value) => Math.min(Math.max(value, 0), 1 - 1e-6);
    this.#state.pointAt({ u: inside(u + dx / PROBE_STEPS), v: inside(v + dy / PROBE_STEPS) });
  }

  #listen(zoomable, signal) {
    const stage = this.element;
    stage.addEventListener("pointermove", (event) => this.#onMove(event), { signal });
    stage.addEventListener("pointerleave", () => this.#state.pointAt(null), { signal });
    stage.addEventListener(
      "pointerdown",
      (event) => {
        if (event.button !== 0 || !this.#state.payload) return;
        stage.setPointerCapture(event.pointerId);
        if (zoomable) this.#drag = { x: event.clientX, y: event.clientY };
        else this.#state.showAlone(true);
      },
      { signal },
    );
    const release = () => {
      this.#drag = null;
      if (!zoomable) this.#state.showAlone(false);
    };
    stage.addEventListener("pointerup", release, { signal });
    stage.addEventListener("pointercancel", release, { signal });
    if (!zoomable) return;
    stage.addEventListener("dblclick", () => this.fit(), { signal });
    stage.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const [x, y] = this.#local(event);
        this.zoomBy(Math.exp(-event.deltaY / 400), x, y);
      },
      { signal, passive: false },
    );
  }

  #onMove(event) {
    if (!this.#state.payload) return;
    if (this.#drag) {
      this.#move(event.clientX - this.#drag.x, event.clientY - this.#drag.y);
      this.#drag = { x: event.clientX, y: event.clientY };
    }
    const area = this.#area();
    const [x, y] = this.#local(event);
    const [u, v] = [(x - area.x) / area.width, (y - area.y) / area.height];
    const inside = u >= 0 && u < 1 && v >= 0 && v < 1;
    this.#state.pointAt(inside ? { u, v } : null);
  }

  /** Where the pointer is in the stage, in its own pixels whatever the host's zoom. */
  #local(event) {
    const box = this.element.getBoundingClientRect();
    const zoom = box.width / this.element.clientWidth || 1;
    return [(event.clientX - box.left) / zoom, (event.clientY - box.top) / zoom];
  }

  #move(dx, dy) {
    const area = this.#area();
    this.#center[0] -= dx / area.width;
    this.#center[1] -= dy / area.height;
    this.redraw();
  }

  /** Where the image lies in the stage. */
  #area() {
    const { payload } = this.#state;
    const [width, height] = [this.element.clientWidth, this.element.clientHeight];
    if (!payload || !width || !height) return null;
    const scale = this.#zoom * Math.min(width / payload.width, height / payload.height);
    const size = [payload.width * scale, payload.height * scale];
    const start = [width, height].map((space, axis) => {
      // What is smaller than the stage stays in its middle, what is larger leaves no gap.
      const reach = Math.max(0, 0.5 - space / 2 / size[axis]);
      const center = this.#center[axis];
      this.#center[axis] = Math.min(Math.max(center, 0.5 - reach), 0.5 + reach);
      return space / 2 - this.#center[axis] * size[axis];
    });
    return { x: start[0], y: start[1], width: size[0], height: size[1] };
  }

  async #load() {
    const { payload, images, image, message } = this.#state;
    this.#message.textContent = payload ? "" : this.#words(message);
    this.element.classList.toggle("bd-empty", !payload);
    if (payload) {
      const aspect = payload.width / payload.height;
      this.element.style.setProperty("--bd-aspect", Math.min(Math.max(aspect, 0.6), 3));
      const picture = await images.full(image).catch(() => null);
      if (image !== this.#state.image || images !== this.#state.images) return;
      this.#picture = picture;
    }
    this.redraw();
  }

  #draw() {
    const surface = prepareCanvas(this.#canvas);
    const area = this.#area();
    this.#placeProbe();
    if (!surface || !area) return;
    const { context } = surface;
    const state = this.#state;
    const { x, y, width, height } = area;
    if (this.#picture) {
      context.imageSmoothingEnabled = width / this.#picture.naturalWidth < SMOOTH_BELOW;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.#picture, x, y, width, height);
    }
    if (state.alone && this.#picture) return;
    context.imageSmoothingEnabled = true;
    if (state.settings.display !== "contour" || !this.#picture) {
      context.globalAlpha = this.#isHeatmap() ? 1 : state.settings.opacity;
      context.drawImage(state.heat(), x, y, width, height);
      context.globalAlpha = 1;
    }
    this.#drawOutline(context, area);
  }

  #isHeatmap() {
    return this.#state.settings.display === "heatmap" || !this.#picture;
  }

  /** White over a dark seam, so that it shows on any ground. */
  #drawOutline(context, { x, y, width, height }) {
    const { outline } = this.#state;
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.lineCap = "round";
    context.beginPath();
    for (let i = 0; i < outline.length; i += 4) {
      context.moveTo(x + outline[i] * width, y + outline[i + 1] * height);
      context.lineTo(x + outline[i + 2] * width, y + outline[i + 3] * height);
    }
    for (const [line, color] of OUTLINE) {
      context.lineWidth = line;
      context.strokeStyle = color;
      context.stroke();
    }
    context.restore();
  }

  #placeProbe() {
    const { probe } = this.#state;
    const area = probe && this.#area();
    this.#probe.hidden = !area;
    if (!area) return;
    const [x, y] = [area.x + probe.u * area.width, area.y + probe.v * area.height];
    this.#probe.style.transform = `translate(${x}px, ${y}px)`;
  }
}

const OUTLINE = [
  [3.5, "rgb(0 0 0 / 0.7)"],
  [1.5, "rgb(255 255 255 / 0.95)"],
];
