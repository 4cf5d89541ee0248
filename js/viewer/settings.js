/** The widgets of one node: read, written, and watched while the node lives. */

const SOON = 200;

export class NodeSettings {
  #node;
  #changed;
  #pending = {};
  #timer = 0;

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
    const widgets = this.#node.widgets ?? [];
    const values = Object.fromEntries(widgets.map(({ name, value }) => [name, value]));
    return Object.assign(values, this.#pending);
  }

  /** Writes values as if they had been typed in. */
  write(changes) {
    Object.assign(this.#pending, changes);
    this.settle();
  }

  /**
   * Writes values that change with every move of the pointer: `values` has them at once, the node a
   * little later, since the host lays out the whole node for each.
   */
  writeSoon(changes) {
    Object.assign(this.#pending, changes);
    this.#timer ||= setTimeout(() => this.settle(), SOON);
    this.#changed();
  }

  /** Hands over to the node what has not been yet. */
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
