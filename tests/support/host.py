"""ComfyUI imported into the test process, with this extension loaded as ComfyUI loads it."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.host_location import ROOT, HostLocation

__all__ = ["EXTENSION_NAME", "Host", "NodeResult", "base_directory"]

EXTENSION_NAME = "comfyui-bayesdiff"
"""The folder name under `custom_nodes`, whatever this repository's own folder is called."""


@dataclass(frozen=True)
class NodeResult:
    """What one node returned: a tuple with one value an output, and the payload for the page."""

    outputs: tuple[Any, ...]
    ui: dict[str, Any]


class Host:
    """ComfyUI in this process, on the CPU.

    `nodes` is the host's own module of that name, `node_classes` all registered node classes by
    id, `own_node_classes` those of this extension, `extension` its top module.
    """

    def __init__(self, location: HostLocation, folder: Path) -> None:
        self.location = location
        self.base_directory = base_directory(folder)
        _import_host(location, self.base_directory)
        # Newer hosts leave out progress that comes too soon after the last; tests want it all.
        importlib.import_module("comfy.utils").PROGRESS_THROTTLE_MIN_INTERVAL = 0
        self.nodes = importlib.import_module("nodes")
        self._execution = importlib.import_module("execution")
        self.load_log = _load_nodes(self.nodes)
        self.node_classes: dict[str, type] = self.nodes.NODE_CLASS_MAPPINGS

    @property
    def own_node_classes(self) -> dict[str, type]:
        parent = f"custom_nodes.{EXTENSION_NAME}"
        return {
            node_id: node_class
            for node_id, node_class in self.node_classes.items()
            if getattr(node_class, "RELATIVE_PYTHON_MODULE", None) == parent
        }

    @property
    def extension(self) -> ModuleType:
        """The extension's top module.

        ComfyUI names it after its path, so its `bayesdiff_core` is another module than the
        `bayesdiff_core` imported by its plain name: take classes from here when comparing types.
        """
        path = self.base_directory / "custom_nodes" / EXTENSION_NAME
        return sys.modules[str(path).replace(".", "_x_")]

    def module(self, dotted_name: str) -> ModuleType:
        """A module of the loaded extension, such as `bayesdiff_core.laplace`."""
        return importlib.import_module(f"{self.extension.__name__}.{dotted_name}")

    def call(self, node_id: str, **inputs: Any) -> NodeResult:
        """Execute one node as the host's executor does: V1 or V3, in inference mode.

        Inputs are values, not links. Exceptions of the node reach the caller as they are.
        """
        node_class = self.node_classes[node_id]
        data, _, v3_data = self._execution.get_input_data(inputs, node_class, "1")
        node = node_class()
        output, ui, _, _ = run_in_thread(self._get_output(node, data, v3_data))
        is_list = getattr(node_class, "OUTPUT_IS_LIST", None) or [False] * len(output)
        values = [slot if many else slot[0] for slot, many in zip(output, is_list, strict=True)]
        return NodeResult(tuple(values), ui)

    async def _get_output(self, node: Any, data: dict, v3_data: dict) -> Any:
        import torch

        with torch.inference_mode():
            # By position: hosts before 0.4 name the last argument otherwise.
            return await self._execution.get_output_data(
                "prompt", "1", node, data, None, None, v3_data
            )


def base_directory(folder: Path) -> Path:
    """Lay out a ComfyUI base directory whose only extension is this repository.

    The user's own ComfyUI folder, models and settings stay untouched and unseen.
    """
    for name in ("custom_nodes", "input", "models", "output", "temp", "user"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    os.symlink(ROOT, folder / "custom_nodes" / EXTENSION_NAME, target_is_directory=True)
    return folder


def run_in_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own: this one may already drive a browser's loop."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def _import_host(location: HostLocation, base: Path) -> None:
    """Import ComfyUI's modules with our command line instead of pytest's."""
    if "nodes" in sys.modules:
        raise RuntimeError(
            "A module named `nodes` was imported before ComfyUI's own. Tests import this "
            "extension's nodes through the `host` fixture, never by `import nodes`."
        )
    sys.path.insert(0, str(location.path))
    command_line = sys.argv
    sys.argv = [
        "main.py",
        "--cpu",
        "--disable-api-nodes",
        *("--base-directory", str(base)),
        *("--database-url", "sqlite:///:memory:"),
    ]
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")
        # Before `nodes`, which puts a folder with another `utils` in front, as main.py does.
        importlib.import_module("utils.extra_config")
    finally:
        sys.argv = command_line


def _load_nodes(nodes: ModuleType) -> str:
    """Register the host's nodes and this extension's; returns the warnings of doing so."""
    server = importlib.import_module("server")

    async def load() -> None:
        server.PromptServer(asyncio.get_running_loop())
        await nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False)

    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        run_in_thread(load())
    finally:
        logging.getLogger().removeHandler(handler)
    return "\n".join(records)
