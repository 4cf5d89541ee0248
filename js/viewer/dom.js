/** Helpers for building and measuring elements of the page. */

/**
 * Creates an element.
 * @param {string} tag with classes, such as "div.bd-row"
 * @param {Record<string, unknown>} [attributes] `text` is the content
 * @param {(Node | string)[]} [children]
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, children = []) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/**
 * Sets the text of an element if it changed, without changing the tree of the page: for every
 * change of the tree the host's style rules are matched again, which takes milliseconds.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function write(element, text) {
  const [node] = element.childNodes;
  if (!node) element.append(text);
  else if (node.data !== text) node.data = text;
}

/**
 * Sets those attributes of an element that changed, for the same reason.
 * @param {Element} element
 * @param {Record<string, unknown>} attributes
 */
export function mark(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

const PATHS = {
  eye: "M2 12s3.6-6.5 10-6.5S22 12 22 12s-3.6 6.5-10 6.5S2 12 2 12zM12 9a3 3 0 100 6 3 3 0 000-6z",
  expand: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  close: "M6 6l12 12M18 6L6 18",
  fit: "M4 8V4h4M20 8V4h-4M4 16v4h4M20 16v4h-4M9 9h6v6H9z",
};

/**
 * Creates a button with an icon.
 * @param {keyof typeof PATHS} icon
 * @param {string} title also read by screen readers
 * @returns {HTMLButtonElement}
 */
export function iconButton(icon, title) {
  const button = make("button.bd-icon", { type: "button", title, "aria-label": title });
  button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${PATHS[icon]}"/></svg>`;
  return button;
}

/** Calls a function once before the next frame, however often it was requested. */
export class Frame {
  #draw;
  #request = 0;

  /** @param {() => void} draw */
  constructor(draw) {
    this.#draw = draw;
  }

  /** Requests a call before the next frame. */
  request() {
    this.#request ||= requestAnimationFrame(() => {
      this.#request = 0;
      this.#draw();
    });
  }

  /** Withdraws the request. */
  cancel() {
    cancelAnimationFrame(this.#request);
    this.#request = 0;
  }
}

/**
 * @typedef {object} Box where an element is on the page, and how large
 * @property {number} left in the pixels of the page, as `top`
 * @property {number} top
 * @property {number} width in the element's own pixels, as `height`
 * @property {number} height
 * @property {number} zoom pixels of the page per pixel of the element
 */

/**
 * Measures an element at any zoom of the host. Call it before changing the page: measuring after a
 * change forces the browser to lay out the page at once.
 * @param {HTMLElement} element
 * @returns {Box}
 */
export function boxOf(element) {
  const { left, top, width } = element.getBoundingClientRect();
  const [ownWidth, ownHeight] = [element.clientWidth, element.clientHeight];
  return { left, top, width: ownWidth, height: ownHeight, zoom: width / ownWidth || 1 };
}

/**
 * Clears a canvas and gives it the resolution that it is shown in.
 * @param {HTMLCanvasElement} canvas
 * @param {Box} box
 * @returns {CanvasRenderingContext2D} that draws in the box's own pixels
 */
export function prepareCanvas(canvas, { width, height, zoom }) {
  const ratio = Math.min(Math.max(zoom, 1) * window.devicePixelRatio, 3);
  const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  context.setTransform(columns / width, 0, 0, rows / height, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}
