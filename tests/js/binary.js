/** Writes the binary that the viewer reads, for tests. */

const align = (bytes) => bytes + ((4 - (bytes % 4)) % 4);

/**
 * @param {number[][]} maps values of each image, row by row
 * @param {object} changes to the header
 */
export function writePayload(maps, height, width, changes = {}) {
  const codes = 65535;
  const parts = [];
  let length = 0;
  const add = (array) => {
    const offset = length;
    parts.push([offset, new Uint8Array(array.buffer)]);
    length = align(length + array.byteLength);
    return offset;
  };
  const low = maps.map((map) => Math.min(...map));
  const step = maps.map((map, i) => (Math.max(...map) - low[i]) / codes || 1);
  const quantised = maps.flatMap((map, i) => map.map((v) => Math.round((v - low[i]) / step[i])));
  const sorted = maps.map((map) => [...map].sort((a, b) => a - b));
  const table = sorted.flatMap((map) =>
    Array.from({ length: 101 }, (_, p) => {
      const place = (p / 100) * (map.length - 1);
      const below = Math.min(Math.floor(place), map.length - 2);
      return map[below] + (map[below + 1] - map[below]) * (place - below);
    }),
  );
  const layer = {
    ...{ name: "contrast", unit: "latent error", height, width, levels: 101, low, step },
    codes: add(Uint16Array.from(quantised)),
    percentiles: add(Float32Array.from(table)),
    scores: sorted.map((map) => map.at(-1)),
    limits: sorted.map((map) => [map[0], map.at(-1)]),
    batch_limits: [Math.min(...low), Math.max(...sorted.map((map) => map.at(-1)))],
    histogram: add(Uint32Array.from(maps.flatMap((map) => [map.length - 1, 1]))),
    bins: 2,
    edges: sorted.map((map) => [map[0], map.at(-1)]),
  };
  const ramp = Uint8Array.from({ length: 768 }, (_, index) => Math.floor(index / 3));
  const header = {
    ...{ version: 1, batch: maps.length, height: 8 * height, width: 8 * width },
    ...{ artifact: "contrast", evaluations: 3, colormaps: { grey: add(ramp) } },
    ...{ signals: [layer], steps: [{ ...layer, name: "1", bins: 0 }] },
    ...changes,
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const start = align(text.length);
  const bytes = new Uint8Array(4 + start + length).fill(32);
  new DataView(bytes.buffer).setUint32(0, start, true);
  bytes.set(text, 4);
  for (const [offset, part] of parts) bytes.set(part, 4 + start + offset);
  return bytes.buffer;
}
