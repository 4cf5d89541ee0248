/**
 * The widgets of one node: read, written, and watched while the node lives.
 */
export class NodeSettings {
  #node;
  #changed;

  /**
   * @param {object} node
   * @param {() => void} changed called after a widget changed, by whomever
   */
  constructor(node, changed) {
    this.#node = node;
    this.#changed = changed;
    for (const widget of node.widgets ?? []) this.#watch(widget);
  }

  /** Values by the names of the inputs. */
  get values() {
    return Object.fromEntries((this.#node.widgets ?? []).map(({ name, value }) => [name, value]));
  }

  /** Writes values as if they had been typed in. */
  write(changes) {
    for (const [name, value] of Object.entries(changes)) {
      const widget = this.#node.widgets?.find((candidate) => candidate.name === name);
      if (!widget || widget.value === value) continue;
      widget.value = value;
      widget.callback?.(value);
    }
    this.#node.graph?.setDirtyCanvas?.(true, true);
  }

  #watch(widget) {
    const callback = widget.callback;
    const changed = this.#changed;
    widget.callback = function (...args) {
      const result = callback?.apply(this, args);
      changed();
      return result;
    };
  }
}
