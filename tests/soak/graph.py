"""A prompt in API form, its inputs filled in at random as /object_info allows."""

from __future__ import annotations

from random import Random
from typing import Any

__all__ = ["STEPS", "Graph", "Link"]

Link = list
"""[node id, slot]: the output of a node."""

STEPS = [1, 2, 2, 3, 3, 4, 4, 5, 6, 8, 10, 12]

SMALL: dict[str, tuple[float, float] | list[Any]] = {
    **{"steps": STEPS, "cfg": (0.5, 9), "recording_mb": [0, *[2048] * 5]},
    **{"probes": (1, 6), "refreshes": (1, 4), "members": (2, 4), "skip": (1, 3), "draws": (1, 3)},
    **{"candidates": (1, 3), "rounds": [1, 1, 2], "variants": (1, 3), "count": (1, 4)},
    **{"grow": (-2, 6), "feather": (0, 6), "minimum_area": (0, 60), "width": (256, 512)},
    **{"threshold_value": (0, 1), "scale_low": (0, 0.2), "scale_high": (0.3, 2), "step": (0, 1)},
    **{"method": ["tangent", "ensemble"]},
    **{"seed": (0, 1 << 32), "noise_seed": (0, 1 << 32), "percentile": (0, 99)},
}
"""Ranges or choices that keep a prompt short, within those of the nodes."""

OURS = ("LaplaceFit", "MaskedResample", "Uncertain", "BayesDiff")


class Graph:
    """Nodes by id; those of the extension get random values wherever none is given.

    Arguments:
        info: The server's answer to /object_info.
        random: Decides everything.
    """

    def __init__(self, info: dict[str, Any], random: Random) -> None:
        self.info = info
        self.random = random
        self.prompt: dict[str, dict[str, Any]] = {}

    def add(self, node: str, **inputs: Any) -> str:
        """Adds a node; returns its id. Inputs that are None are left out."""
        given = {name: value for name, value in inputs.items() if value is not None}
        for section in ("required", "optional"):
            for name, specification in self.info[node]["input"].get(section, {}).items():
                value = self._value(node, name, specification) if name not in inputs else None
                if value is not None:
                    given[name] = value
        node_id = str(len(self.prompt) + 1)
        self.prompt[node_id] = {"class_type": node, "inputs": given}
        return node_id

    def twin(self, node_id: str, node: str) -> str:
        """Adds another node with the inputs that it shares with one that is there."""
        known = {n for part in self.info[node]["input"].values() for n in part}
        inputs = self.prompt[node_id]["inputs"]
        return self.add(node, **{name: v for name, v in inputs.items() if name in known})

    def out(self, node: str, **inputs: Any) -> Link:
        """Adds a node; returns its first output."""
        return [self.add(node, **inputs), 0]

    def choices(self, node: str, name: str) -> list[Any]:
        """What a list of choices offers."""
        parts = self.info[node]["input"]
        kind, options = _parts({**parts["required"], **parts.get("optional", {})}[name])
        return kind if isinstance(kind, list) else options["options"]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def _value(self, node: str, name: str, specification: list[Any]) -> Any:
        kind, options = _parts(specification)
        if isinstance(kind, list) or kind == "COMBO":
            choices = self.choices(node, name)
            if not node.startswith(OURS):
                return options.get("default", choices[0])
            return self.random.choice(SMALL.get(name, choices))
        if kind not in ("INT", "FLOAT", "BOOLEAN") or not node.startswith(OURS):
            return options.get("default")
        if kind == "BOOLEAN":
            return self.chance(0.5)
        limits = SMALL.get(name, (options["min"], options["max"]))
        if isinstance(limits, list):
            return self.random.choice(limits)
        if kind == "INT":
            step = options.get("step", 1)
            return limits[0] + step * self.random.randint(0, int((limits[1] - limits[0]) / step))
        return round(self.random.uniform(*limits), 2)


def _parts(specification: list[Any]) -> tuple[Any, dict[str, Any]]:
    return specification[0], specification[1] if len(specification) > 1 else {}
