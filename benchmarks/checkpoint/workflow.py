"""An exported workflow: where it samples with uncertainty, decodes, and takes its prompt.

The form is the host's API form: a node by its id, `{"class_type": ..., "inputs": {...}}`, where an
input is a value or a link `[node id, output]`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import CheckpointError

__all__ = ["TAP", "TAP_ID", "NodeType", "Prompt", "Workflow", "examine", "read_workflow"]

Prompt = dict[str, dict[str, Any]]
Link = tuple[str, int]

TAP = "BayesDiffBenchmarkTap"
"""The node type that takes what is measured out of a run; see `host`."""

TAP_ID = "bayesdiff tap"
NOISE_ID = "bayesdiff noise"


@dataclass(frozen=True)
class NodeType:
    """What the host says of a node type: types of its outputs, names of its multi-line texts."""

    outputs: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Sampler:
    """An uncertain sampler's input for the seed and for the prompt, and its outputs."""

    seed: str
    prompt: str
    latents: tuple[int, ...]
    uncertainty: int


SAMPLERS = {
    "UncertainKSampler": Sampler("seed", "positive", (0,), 1),
    "BayesDiffUncertainKSamplerAdvanced": Sampler("noise_seed", "positive", (0,), 1),
    "BayesDiffUncertainSamplerCustom": Sampler("noise", "guider", (0, 1), 2),
}


@dataclass(frozen=True)
class Workflow:
    """A workflow with the node that samples, the link to its decoded images, and its texts.

    `texts` are the (node, input) that hold the prompt of the image, `path` the nodes from them to
    the sampler.
    """

    nodes: Prompt
    sampler: str
    images: Link
    texts: tuple[tuple[str, str], ...]
    path: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The text of the prompt; of several that differ, one after the other; empty if none."""
        found = [self._text(*place) for place in self.texts]
        return ", ".join(dict.fromkeys(text for text in found if text))

    def _text(self, node: str, name: str) -> str | None:
        value = self.nodes[node]["inputs"].get(name)
        if not is_link(value):
            return value
        # A node that holds a text and nothing else, such as the host's primitives.
        texts = [v for v in self.nodes[value[0]]["inputs"].values() if isinstance(v, str)]
        return texts[0] if len(texts) == 1 else None

    def of_run(self, seed: int, prompt: str | None = None) -> Prompt:
        """What the host executes: with this seed, this prompt, and the tap in place of the rest.

        No trajectory is recorded, which saves memory and changes no signal.

        Raises:
            CheckpointError: A prompt has no place to go.
        """
        nodes = copy.deepcopy(self.nodes)
        inputs = nodes[self.sampler]["inputs"]
        kind = SAMPLERS[nodes[self.sampler]["class_type"]]
        inputs["recording_mb"] = 0
        if kind.seed == "noise":
            nodes[NOISE_ID] = {"class_type": "RandomNoise", "inputs": {"noise_seed": seed}}
            inputs["noise"] = [NOISE_ID, 0]
        else:
            inputs[kind.seed] = seed
        if prompt is not None:
            if len({node for node, _ in self.texts}) != 1:
                raise CheckpointError(
                    f"The prompt of node {self.sampler} comes from {len(self.texts)} texts, so a "
                    "list of prompts has no single place to go. Leave the list out, or connect "
                    "one text encoder with its text typed into it."
                )
            self._say(nodes, prompt)
        nodes[TAP_ID] = {
            "class_type": TAP,
            "inputs": {
                "uncertainty": [self.sampler, kind.uncertainty],
                "images": list(self.images),
            },
        }
        return {node: nodes[node] for node in _ancestors(nodes, TAP_ID)}

    def _say(self, nodes: Prompt, prompt: str) -> None:
        """Give the sampler this prompt, through copies of the nodes between text and sampler.

        What else takes the prompt, a LaplaceFit for one, keeps its own and is not run again.
        """
        copies = {node: f"bayesdiff {node}" for node in self.path}

        def relinked(inputs: dict[str, Any]) -> dict[str, Any]:
            return {
                name: [copies.get(value[0], value[0]), value[1]] if is_link(value) else value
                for name, value in inputs.items()
            }

        for node, copied in copies.items():
            nodes[copied] = {**nodes[node], "inputs": relinked(nodes[node]["inputs"])}
        for node, name in self.texts:
            nodes[copies[node]]["inputs"][name] = prompt
        sampler = nodes[self.sampler]
        kind = SAMPLERS[sampler["class_type"]]
        sampler["inputs"] |= relinked({kind.prompt: sampler["inputs"][kind.prompt]})


def read_workflow(path: Path) -> Prompt:
    """The nodes of a file in the host's API form.

    Raises:
        CheckpointError: The file is missing or in another form.
    """
    try:
        nodes = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise CheckpointError(
            f"{path} is no JSON. Export the workflow from ComfyUI's menu: Workflow, Export (API)."
        ) from None
    if isinstance(nodes, dict) and isinstance(nodes.get("nodes"), list):
        raise CheckpointError(
            f"{path} is a workflow as the page saves it, which only the page can run. Open it in "
            "ComfyUI and export it anew: menu Workflow, Export (API)."
        )
    is_prompt = isinstance(nodes, dict) and nodes
    if not is_prompt or not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
        for node in nodes.values()
    ):
        raise CheckpointError(
            f"{path} is no workflow in API form. Export one from ComfyUI's menu: Workflow, "
            "Export (API)."
        )
    for name, node in nodes.items():
        for value in filter(is_link, node["inputs"].values()):
            if value[0] not in nodes:
                raise CheckpointError(
                    f"{path}: node {name} is connected to node {value[0]}, which the file does "
                    "not hold. Export the workflow again."
                )
    return nodes


def examine(nodes: Prompt, types: Mapping[str, NodeType], node: str | None = None) -> Workflow:
    """Find the sampler, or take `node`, its decoded images and its prompt.

    Raises:
        CheckpointError: The sampler or the decoder is missing or not the only one, the sampler has
            no noise of its own, or the host lacks a node type.
    """
    sampler = _find_sampler(nodes, node)
    _check_noise(nodes, sampler)
    images = _find_images(nodes, types, sampler)
    for ancestor in _ancestors(nodes, images[0]):
        missing = nodes[ancestor]["class_type"]
        if missing not in types:
            raise CheckpointError(
                f"This ComfyUI has no node type {missing} (node {ancestor}). Install the "
                "extension it belongs to, or replace the node."
            )
    kind = SAMPLERS[nodes[sampler]["class_type"]]
    texts, path = _prompt(nodes, types, nodes[sampler]["inputs"].get(kind.prompt))
    return Workflow(nodes, sampler, images, tuple(texts), tuple(path))


def _find_sampler(nodes: Prompt, node: str | None) -> str:
    found = [name for name, entry in nodes.items() if entry["class_type"] in SAMPLERS]
    if node is not None and node not in found:
        raise CheckpointError(
            f"Node {node} is no uncertain sampler of this workflow. It has: "
            f"{', '.join(found) or 'none'}."
        )
    if not found:
        raise CheckpointError(
            "The workflow has no uncertain sampler. Put UncertainKSampler in the place of its "
            "KSampler (for custom sampling BayesDiffUncertainSamplerCustom) and export it again."
        )
    if len(found) > 1 and node is None:
        raise CheckpointError(
            f"The workflow has {len(found)} uncertain samplers: nodes {', '.join(found)}. Choose "
            "one with --node."
        )
    return node or found[0]


def _check_noise(nodes: Prompt, sampler: str) -> None:
    inputs = nodes[sampler]["inputs"]
    noise = inputs.get("noise")
    without = is_link(noise) and nodes[noise[0]]["class_type"] == "DisableNoise"
    if without or inputs.get("add_noise") == "disable":
        raise CheckpointError(
            f"Node {sampler} adds no noise, so every seed would give the same image. Measure a "
            "sampler that begins with noise."
        )


def _find_images(nodes: Prompt, types: Mapping[str, NodeType], sampler: str) -> Link:
    """Of the node that makes an IMAGE of the sampler's own latent: the maps belong to no other."""
    latents = SAMPLERS[nodes[sampler]["class_type"]].latents
    for name, entry in nodes.items():
        takes = any(
            is_link(value) and value[0] == sampler and value[1] in latents
            for value in entry["inputs"].values()
        )
        outputs = types[entry["class_type"]].outputs if entry["class_type"] in types else ()
        if takes and "IMAGE" in outputs:
            return name, outputs.index("IMAGE")
    raise CheckpointError(
        f"No image comes of node {sampler}: connect a VAEDecode to its latent output, an image "
        "output (PreviewImage) behind it, and export the workflow again."
    )


def _prompt(
    nodes: Prompt, types: Mapping[str, NodeType], link: Any
) -> tuple[list[tuple[str, str]], list[str]]:
    """The multi-line texts of a conditioning or a guider, not the negative, and the way there."""
    pending, path = [link], []
    texts: list[tuple[str, str]] = []
    while pending:
        current = pending.pop(0)
        if not is_link(current) or current[0] in path:
            continue
        node = current[0]
        path.append(node)
        inputs = nodes[node]["inputs"]
        found = types[nodes[node]["class_type"]].texts
        texts += [(node, name) for name in found if name in inputs]
        if found:
            continue
        for name, value in inputs.items():
            if not is_link(value) or "negative" in name:
                continue
            outputs = types[nodes[value[0]]["class_type"]].outputs
            if outputs[value[1] : value[1] + 1] == ("CONDITIONING",):
                pending.append(value)
    return texts, path


def _ancestors(nodes: Prompt, node: str) -> list[str]:
    """A node and everything it is made of."""
    pending, found = [node], []
    while pending:
        current = pending.pop()
        if current in found:
            continue
        found.append(current)
        pending += [v[0] for v in nodes[current]["inputs"].values() if is_link(v)]
    return found


def is_link(value: Any) -> bool:
    return isinstance(value, list) and [type(part) for part in value] == [str, int]
