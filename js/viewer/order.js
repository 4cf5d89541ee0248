/** Images of a batch from sure to unsure; equal scores keep their order. */
export function fromSureToUnsure(scores) {
  return scores.map((_, image) => image).sort((a, b) => scores[a] - scores[b] || a - b);
}
