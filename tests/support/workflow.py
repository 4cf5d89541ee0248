"""From a workflow as the page saves it to the prompt the server executes.

The page does this itself (`app.graphToPrompt`); this is for tests that run a workflow without a
browser. It knows plain nodes and Reroute, and refuses what it does not know.
"""

from __future__ import annotations

from typing import Any

__all__ = ["to_prompt"]

NOTES = {"Note", "MarkdownNote"}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
ACTIVE = 0


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The prompt in API form of a saved workflow.

    `object_info` is the server's answer to /object_info.

    Raises
    ------
    ValueError
        The workflow holds a node that is unknown, muted or bypassed.
    """
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] not in NOTES}
    sources = {link[0]: (link[1], link[2]) for link in workflow["links"]}
    prompt = {}
    for node_id, node in nodes.items():
        if node["type"] == "Reroute":
            continue
        if node.get("mode", ACTIVE) != ACTIVE:
            raise ValueError(f"Node {node_id} ({node['type']}) is muted or bypassed.")
        if node["type"] not in object_info:
            raise ValueError(f"Node {node_id} is of the unknown type {node['type']}.")
        inputs = _widget_inputs(node, object_info[node["type"]])
        inputs.update(_linked_inputs(node, nodes, sources))
        prompt[str(node_id)] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def _linked_inputs(node: dict, nodes: dict[int, dict], sources: dict[int, tuple]) -> dict:
    links = {slot["name"]: slot.get("link") for slot in node.get("inputs", [])}
    return {
        name: _origin(sources[link], nodes, sources)
        for name, link in links.items()
        if link is not None
    }


def _origin(source: tuple[int, int], nodes: dict[int, dict], sources: dict[int, tuple]) -> list:
    node = nodes[source[0]]
    if node["type"] == "Reroute":
        return _origin(sources[node["inputs"][0]["link"]], nodes, sources)
    return [str(source[0]), source[1]]


def _widget_inputs(node: dict, info: dict) -> dict[str, Any]:
    """The widgets' values by input name; the page saves them as a list in input order."""
    values = iter(node.get("widgets_values") or [])
    inputs = {}
    for section in ("required", "optional"):
        for name in info["input_order"].get(section, []):
            kind, options = _specification(info["input"][section][name])
            if kind not in WIDGET_TYPES or options.get("forceInput"):
                continue
            value = next(values, options.get("default"))
            if value is not None:
                inputs[name] = value
            if _has_companion_widget(name, kind, options):
                next(values, None)
    return inputs


def _specification(specification: list) -> tuple[str, dict]:
    kind = "COMBO" if isinstance(specification[0], list) else specification[0]
    return kind, specification[1] if len(specification) > 1 else {}


def _has_companion_widget(name: str, kind: str, options: dict) -> bool:
    """Whether the page adds a second widget: what to do with a seed after a run, an upload."""
    is_seed = kind == "INT" and name in ("seed", "noise_seed")
    return bool(options.get("control_after_generate", is_seed) or options.get("image_upload"))
