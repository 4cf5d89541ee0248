/** Reads and writes the values of a node's widgets, and reports when they change. */

/** Milliseconds between two values that the node gets during a drag. */
const DELAY = 200;

/** The settings of one node: the values of its widgets by the names of its inputs. */
export class NodeSettings {
  #node;
  #changed;
  #pending = {};
  #timer = 0;

  /**
   * @param {object} node of the host
   * @param {() => void} changed called after any change of a widget, whoever made it
   */
  constructor(node, changed) {
    this.#node = node;
    this.#changed = changed;
    for (const widget of node.widgets ?? []) this.#watch(widget);
  }

  /** @returns {Record<string, unknown>} values by the names of the inputs */
  get values() {
    const widgets = this.#node.widgets ?? [];
    const values = Object.fromEntries(widgets.map(({ name, value }) => [name, value]));
    return Object.assign(values, this.#pending);
  }

  /**
   * Writes values as if they had been typed in.
   * @param {Record<string, unknown>} changes by the names of the inputs
   */
  write(changes) {
    Object.assign(this.#pending, changes);
    this.settle();
  }

  /**
   * Writes values that change with every move of the pointer: `values` has them at once, the node
   * after a delay, since the host lays out the whole node for each.
   * @param {Record<string, unknown>} changes by the names of the inputs
   */
  writeSoon(changes) {
    Object.assign(this.#pending, changes);
    this.#timer ||= setTimeout(() => this.settle(), DELAY);
    this.#changed();
  }

  /** Writes to the node the values that are still waiting. */
  settle() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const changes = Object.entries(this.#pending);
    this.#pending = {};
    for (const [name, value] of changes) {
      const widget = this.#node.widgets?.find((candidate) => candidate.name === name);
      if (!widget || widget.value === value) continue;
      widget.value = value;
      widget.callback?.(value);
    }
    if (changes.length) this.#node.graph?.setDirtyCanvas?.(true, false);
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
