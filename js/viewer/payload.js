/**
 * Reads the binary that UncertaintyHeatmap writes to the temp folder; its layout is described in
 * `bayesdiff_core/render/viewer_payload.py`.
 *
 * @typedef {{filename: string, subfolder: string, type: string}} FileReference
 * @typedef {{values: FileReference, images: FileReference[]}} Reference the files of a run
 *
 * @typedef {object} Payload
 * @property {number} batch
 * @property {number} height of the images, in pixels
 * @property {number} width
 * @property {string} artifact the signal that `artifact` stands for
 * @property {number} evaluations of the run
 * @property {Record<string, Uint8Array>} colormaps 256 RGB triples each
 * @property {Layer[]} signals
 * @property {Layer[]} steps
 */

import { Layer } from "./layer.js";

const VERSION = 1;

/**
 * Reads the values of a run.
 * @param {ArrayBuffer} buffer the content of the file
 * @returns {Payload}
 * @throws {Error} if another version of the extension wrote the file
 */
export function readPayload(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  if (header.version !== VERSION) {
    throw new Error(
      `The values have format ${header.version}, this viewer reads ${VERSION}: reload the page.`,
    );
  }
  const body = 4 + length;
  const layer = (description) => new Layer(description, buffer, body);
  const colors = ([name, offset]) => [name, new Uint8Array(buffer, body + offset, 768)];
  return {
    ...header,
    colormaps: Object.fromEntries(Object.entries(header.colormaps).map(colors)),
    signals: header.signals.map(layer),
    steps: header.steps.map(layer),
  };
}

/**
 * Whether a value is a {@link Reference} and not something that another version saved.
 * @param {unknown} value
 * @returns {boolean}
 */
export function isReference(value) {
  return typeof value?.values?.filename === "string" && Array.isArray(value.images);
}
