"""ComfyUI started in this process as it starts itself, and workflows run by its own executor."""

from __future__ import annotations

import asyncio
import copy
import importlib
import sys
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.host import base_directory as lay_out
from tests.support.host_location import ROOT, HostNotFoundError, find_host

from . import CheckpointError
from .workflow import TAP, TAP_ID, NodeType, Prompt

__all__ = ["Executor", "Seen", "start_host"]


@dataclass(frozen=True)
class Seen:
    """What a run left: its UNCERTAINTY, and its decoded images (B, H, W, 3), RGB in [0, 1]."""

    uncertainty: Any
    images: Tensor


class Tap:
    """An output node that keeps what arrives. The host knows it in this process only."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "take"
    CATEGORY = "BayesDiff"

    seen: list[Seen] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"uncertainty": ("UNCERTAINTY",), "images": ("IMAGE",)}}

    @classmethod
    def IS_CHANGED(cls, **_inputs: Any) -> float:
        # Not a number differs from itself: a run that the host has cached arrives as well.
        return float("nan")

    def take(self, uncertainty: Any, images: Tensor) -> dict[str, Any]:
        self.seen.append(Seen(uncertainty, images[..., :3].float().cpu().clone()))
        return {"ui": {}}


class NoPage:
    """The executor's counterpart where no page is open: there is nobody to send progress to."""

    client_id = None
    last_node_id = None

    def send_sync(self, *_message: Any) -> None:
        pass


def start_host(arguments: Sequence[str] = (), base_directory: Path | None = None) -> None:
    """Start ComfyUI in this process, with its extensions, model folders and this extension.

    `arguments` are its own, such as `--lowvram`. With a base directory, an empty folder, it sees
    no models and no other extensions.

    Raises:
        CheckpointError: There is no ComfyUI, or it does not load this extension.
    """
    try:
        location = find_host()
    except HostNotFoundError as error:
        raise CheckpointError(str(error)) from None
    if location is None:
        raise CheckpointError(
            "No ComfyUI was found. Name its folder, the one with main.py, in the environment "
            "variable COMFYUI_PATH, or clone this repository into its custom_nodes."
        )
    given = list(arguments)
    if base_directory is not None:
        given += ["--base-directory", str(lay_out(base_directory))]
    # A server that may run beside this process keeps its database and its temporary files.
    given += ["--database-url", "sqlite:///:memory:"]
    given += ["--temp-directory", str((base_directory or ROOT / "output") / "host")]
    given += [] if "--verbose" in given else ["--verbose", "WARNING"]
    given += ["--disable-api-nodes"]
    if not has_accelerator() and not {"--cpu", "--directml"} & set(given):
        given.append("--cpu")
    main = _import_main(location.path, given)
    loop, _server, _serve = main.start_comfyui()
    nodes = importlib.import_module("nodes")
    if "UncertainKSampler" not in nodes.NODE_CLASS_MAPPINGS:
        loop.run_until_complete(nodes.load_custom_node(str(ROOT), module_parent="custom_nodes"))
    if "UncertainKSampler" not in nodes.NODE_CLASS_MAPPINGS:
        raise CheckpointError(
            f"ComfyUI at {location.path} did not load this extension; its log above says why."
        )


def has_accelerator() -> bool:
    """Whether torch computes anywhere but on the CPU."""
    if hasattr(torch, "accelerator"):  # from torch 2.6
        return torch.accelerator.is_available()
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _import_main(folder: Path, arguments: list[str]) -> Any:
    """ComfyUI's main module, which reads the command line when it is imported."""
    sys.path.insert(0, str(folder))
    command_line, sys.argv = sys.argv, ["main.py", *arguments]
    try:
        return importlib.import_module("main")
    finally:
        sys.argv = command_line


class Executor:
    """The executor of a host that runs in this process; what does not change is not run again."""

    def __init__(self) -> None:
        self._nodes = importlib.import_module("nodes")
        self._execution = importlib.import_module("execution")
        self._nodes.NODE_CLASS_MAPPINGS[TAP] = Tap
        importlib.import_module("comfy.utils").set_progress_bar_enabled(False)
        # The sizes of other kinds of cache; which ones the host reads differs between versions.
        sizes: dict[str, int] = defaultdict(int)
        self._executor = self._execution.PromptExecutor(
            NoPage(), self._execution.CacheType.CLASSIC, sizes
        )

    def types_of(self, nodes: Prompt) -> dict[str, NodeType]:
        """The node types of a workflow that the host has."""
        names = {entry["class_type"] for entry in nodes.values()}
        known = self._nodes.NODE_CLASS_MAPPINGS
        return {name: _node_type(known[name]) for name in names if name in known}

    def run(self, prompt: Prompt) -> Seen:
        """Execute what `Workflow.of_run` returns.

        Raises:
            CheckpointError: The host refuses it, or a node fails, in the host's words.
        """
        name = str(uuid.uuid4())
        prompt = copy.deepcopy(prompt)  # The host notes in it what has changed.
        valid, error, outputs, problems = asyncio.run(
            self._execution.validate_prompt(name, prompt, [TAP_ID])
        )
        if not valid:
            raise CheckpointError(f"ComfyUI refuses the workflow: {_refusal(error, problems)}")
        Tap.seen.clear()
        self._executor.execute(prompt, name, {}, outputs)
        if not self._executor.success:
            raise CheckpointError(_failure(self._executor.status_messages))
        if len(Tap.seen) != 1:
            raise CheckpointError(
                f"The sampler ran {len(Tap.seen)} times in one run of the workflow; give it one "
                "latent with a batch, not a list."
            )
        return Tap.seen.pop()


def _node_type(node: Any) -> NodeType:
    inputs = node.INPUT_TYPES()
    fields = {**inputs.get("required", {}), **inputs.get("optional", {})}
    texts = [
        name
        for name, (kind, *options) in fields.items()
        if kind == "STRING" and options and options[0].get("multiline")
    ]
    return NodeType(tuple(map(str, node.RETURN_TYPES)), tuple(texts))


def _refusal(error: dict[str, Any], problems: dict[str, Any]) -> str:
    found = [
        f"node {node} ({problem['class_type']}): {reason['message']}, {reason['details']}"
        for node, problem in problems.items()
        for reason in problem["errors"]
    ]
    return "; ".join(found) or f"{error['message']} {error['details']}"


def _failure(messages: list[tuple[str, dict[str, Any]]]) -> str:
    for event, data in messages:
        if event == "execution_error":
            return (
                f"Node {data['node_id']} ({data['node_type']}) failed: "
                f"{data['exception_message'].strip()}"
            )
    return "ComfyUI interrupted the run."
