/**
 * Shows the picture: image, heat over it, outline of the mask, and the probe under the pointer.
 *
 * Each is an element of its own, so that changing opacity or zoom or showing the image alone needs
 * no new drawing, and the pointer moves the probe and nothing else.
 */

import { Frame, boxOf, make, prepareCanvas } from "./dom.js";

const SMOOTH_BELOW = 3;
const LARGEST_ZOOM = 64;
const PROBE_STEPS = 64;

/** The picture with its zoom and its probe. */
export class Stage {
  #state;
  #translate;
  #image = make("img.bd-image", { alt: "", draggable: "false", hidden: "" });
  #heat = make("canvas.bd-heat");
  #picture = make("div.bd-picture", {}, [this.#image, this.#heat]);
  #outline = make("canvas.bd-canvas");
  #probe = make("div.bd-probe", { hidden: "" });
  #message = make("div.bd-message");
  #frame = new Frame(() => this.#draw());
  #probeFrame = new Frame(() => this.#placeProbe());
  #loaded = null;
  #painted = null;
  #traced = null;
  #box = { width: 0, height: 0, zoom: 1 };
  #zoom = 1;
  #center = [0.5, 0.5];
  #drag = null;

  /**
   * @param {import("./state.js").ViewerState} state
   * @param {import("./messages.js").Translate} translate
   * @param {{zoomable: boolean, signal: AbortSignal}} options `signal` ends it
   */
  constructor(state, translate, { zoomable, signal }) {
    this.#state = state;
    this.#translate = translate;
    this.element = make(
      "div.bd-stage",
      {
        ...{ tabindex: "0", role: "img", "aria-label": translate("picture") },
        title: translate(zoomable ? "stageLarge" : "stage"),
      },
      [this.#picture, this.#outline, this.#probe, this.#message],
    );
    state.addEventListener("content", () => this.#load(), { signal });
    state.addEventListener("view", () => this.#load(), { signal });
    state.addEventListener("probe", () => this.#probeFrame.request(), { signal });
    const size = new ResizeObserver(() => {
      this.#box = boxOf(this.element);
      this.redraw();
    });
    size.observe(this.element, { box: "border-box" });
    signal.addEventListener("abort", () => {
      size.disconnect();
      this.#frame.cancel();
      this.#probeFrame.cancel();
    });
    this.#listen(zoomable, signal);
    this.#load();
  }

  /** Draws once before the next frame. */
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
  zoomBy(factor, x = this.#box.width / 2, y = this.#box.height / 2) {
    const before = this.#area();
    if (!before) return;
    const [u, v] = [(x - before.x) / before.width, (y - before.y) / before.height];
    this.#zoom = Math.min(Math.max(this.#zoom * factor, 1), LARGEST_ZOOM);
    const after = this.#area();
    this.#move(after.x + u * after.width - x, after.y + v * after.height - y);
  }

  /** Moves the probe by steps over the image, starting from the middle of the image. */
  stepProbe(dx, dy) {
    const { u, v } = this.#state.probe ?? { u: 0.5, v: 0.5 };
    const inside = (value) => Math.min(Math.max(value, 0), 1 - 1e-6);
    const place = { u: inside(u + dx / PROBE_STEPS), v: inside(v + dy / PROBE_STEPS) };
    this.#state.pointAt(place, true);
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

  /** The position of the pointer in the stage, in the stage's own pixels at any host zoom. */
  #local(event) {
    const box = boxOf(this.element);
    if (box.zoom !== this.#box.zoom) this.redraw();
    this.#box = box;
    return [(event.clientX - box.left) / box.zoom, (event.clientY - box.top) / box.zoom];
  }

  #move(dx, dy) {
    const area = this.#area();
    this.#center[0] -= dx / area.width;
    this.#center[1] -= dy / area.height;
    this.redraw();
  }

  /** The rectangle of the image in the stage, in the stage's own pixels. */
  #area() {
    const { payload } = this.#state;
    const { width, height } = this.#box;
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
    this.#message.textContent = payload ? "" : this.#translate(message);
    this.element.classList.toggle("bd-empty", !payload);
    this.redraw();
    if (!payload) return;
    const aspect = payload.width / payload.height;
    this.element.style.setProperty("--bd-aspect", Math.min(Math.max(aspect, 0.6), 3));
    const url = images.url(image);
    if (url === this.#loaded) return;
    const picture = url && (await images.full(image).catch(() => null));
    if (url !== this.#state.images.url(this.#state.image)) return;
    this.#loaded = url;
    if (picture) this.#image.src = picture.src;
    this.#image.hidden = !picture;
    this.redraw();
  }

  #draw() {
    const area = this.#area();
    this.#picture.hidden = this.#outline.hidden = !area;
    this.#placeProbe();
    if (!area) return;
    const { settings, alone, outline } = this.#state;
    const hasImage = !this.#image.hidden;
    const smooth = area.width / this.#state.payload.width < SMOOTH_BELOW;
    this.#image.style.imageRendering = smooth ? "auto" : "pixelated";
    Object.assign(this.#picture.style, {
      width: `${area.width}px`,
      height: `${area.height}px`,
      transform: `translate(${area.x}px, ${area.y}px)`,
    });
    this.#heat.hidden = hasImage && (alone || settings.display === "contour");
    this.#outline.hidden = hasImage && alone;
    const opaque = settings.display === "heatmap" || !hasImage;
    this.#heat.style.opacity = opaque ? 1 : settings.opacity;
    if (!this.#heat.hidden) this.#paintHeat(this.#state.heat());
    if (!this.#outline.hidden) this.#drawOutline(outline, area);
  }

  #paintHeat(heat) {
    if (heat === this.#painted) return;
    this.#painted = heat;
    this.#heat.width = heat.width;
    this.#heat.height = heat.height;
    this.#heat.getContext("2d").drawImage(heat, 0, 0);
  }

  /** Draws the outline in white over a darker line, so that it shows on any background. */
  #drawOutline(outline, { x, y, width, height }) {
    const key = [x, y, width, height, this.#box.width, this.#box.height, this.#box.zoom].join();
    if (outline === this.#traced?.outline && key === this.#traced.key) return;
    if (outline !== this.#traced?.outline) this.#traced = { outline, path: pathOf(outline) };
    this.#traced.key = key;
    const context = prepareCanvas(this.#outline, this.#box);
    context.save();
    context.lineJoin = "bevel";
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    const path = new Path2D();
    path.addPath(this.#traced.path, new DOMMatrix([width, 0, 0, height, x, y]));
    for (const [line, color] of OUTLINE) {
      context.lineWidth = line;
      context.strokeStyle = color;
      context.stroke(path);
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

/** The outline as a path in the unit square. */
function pathOf(rings) {
  const path = new Path2D();
  for (const ring of rings) {
    path.moveTo(ring[0], ring[1]);
    for (let i = 2; i < ring.length; i += 2) path.lineTo(ring[i], ring[i + 1]);
    path.closePath();
  }
  return path;
}
