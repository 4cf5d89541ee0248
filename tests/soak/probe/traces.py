"""What a run of the extension could leave behind: on models, in the host's modules, in memory."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import time
import weakref
from collections import Counter
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import psutil
import torch
from comfy.k_diffusion import sampling

__all__ = ["Traces", "trimmed_mb"]

EXTENSION = "comfyui-bayesdiff"
MODULES = [
    comfy.model_management,
    comfy.model_patcher,
    comfy.ops,
    comfy.patcher_extension,
    comfy.sample,
    comfy.samplers,
    comfy.utils,
    latent_preview,
    sampling,
]
RESULTS = {"LaplacePosterior", "Recording", "RunSettings", "Segment", "Signal", "Uncertainty"}
"""Classes whose objects the host keeps as long as it caches what the nodes returned."""
OF_MODELS = {"LastLayer", "ModelLayer", "OutputMap", "Positions"}
"""Classes whose objects live as long as the model they were found in."""
LOOKS = 5
"""How often objects are looked for: `gc.collect` does nothing while another thread collects."""
MODELS = (".demo.", ".nodes.host.demo_models")
"""Parts of the extension whose objects belong to a bundled model."""


class Traces:
    """Remembers how models and the host looked, and tells what looks otherwise."""

    def __init__(self) -> None:
        self._models: list[tuple[weakref.ref[Any], dict[str, Any]]] = []
        self._functions: dict[str, Any] = {}
        self._objects: Counter[str] = Counter()

    def watch(self, model: Any) -> None:
        """Note how a ModelPatcher looks now."""
        self._models.append((weakref.ref(model), fingerprint(model)))

    def state(self) -> dict[str, Any]:
        """What has changed since the last call, for a model since it was watched.

        Between prompts only: a run that goes on has a right to its objects.
        """
        functions = host_functions()
        for _ in range(LOOKS):
            gc.collect()
            objects = own_objects()
            held = Counter({name: objects.pop(name) for name in sorted(objects) if is_held(name)})
            if not objects - self._objects:
                break
            time.sleep(0.3)
        if not self._functions:
            self._functions, self._objects = functions, objects
        models = [(ref, before) for ref, before in self._models if ref() is not None]
        self._models = [(ref, fingerprint(ref())) for ref, _ in models]
        changed = [
            f"model: {what}"
            for (_, before), (_, now) in zip(models, self._models, strict=True)
            for what in now
            if now[what] != before[what]
        ]
        changed += [
            f"host: {name}"
            for name in self._functions | functions
            if self._functions.get(name) is not functions.get(name)
        ]
        changed += [f"alive: {name} x{count}" for name, count in (objects - self._objects).items()]
        self._functions, self._objects = functions, self._objects | objects
        return {
            "changed": sorted(set(changed)),
            "held": held,
            "tensors_mb": tensors_mb(),
            "rss_mb": rss_mb(),
        }


def fingerprint(model: Any) -> dict[str, Any]:
    """Everything of a ModelPatcher that we could have touched."""
    modules = list(model.model.modules())
    # Of the network alone: a patched model_sampling stays until another patch is loaded.
    network = model.model.diffusion_model.state_dict()
    weights = hashlib.sha256()
    for tensor in network.values():
        weights.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return {
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules),
        "methods": [name for m in modules for name, value in vars(m).items() if callable(value)],
        "weights": weights.hexdigest(),
        "keys": list(network),
        **{
            name: repr(getattr(model, name))
            for name in (
                *("wrappers", "model_options", "callbacks", "object_patches", "patches"),
                *("injections", "attachments", "additional_models", "forced_hooks"),
            )
        },
    }


def host_functions() -> dict[str, Any]:
    """Functions, classes and modules in the host's modules, by name."""
    return {
        f"{module.__name__}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if callable(value) or name == "torch"
    }


def own_objects() -> Counter[str]:
    """How many objects of the extension's classes are alive; models and nodes aside."""
    found: Counter[str] = Counter()
    for one in map(type, gc.get_objects()):
        module = getattr(one, "__module__", None)
        if not isinstance(module, str) or EXTENSION not in module:
            continue
        part = module.partition(EXTENSION)[2]
        if not (hasattr(one, "define_schema") or f"{part}.".startswith(MODELS)):
            found[f"{part}.{one.__name__}"] += 1
    return found


def is_held(name: str) -> bool:
    """Whether the host rightly keeps objects of a class after a prompt."""
    return name.rpartition(".")[2] in RESULTS | OF_MODELS


def rss_mb() -> float:
    """Resident memory of the server."""
    return psutil.Process().memory_info().rss / 2**20


def trimmed_mb() -> float | None:
    """Resident memory once the allocator has given back what is free; None without glibc."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (AttributeError, OSError):
        return None
    return rss_mb()


def tensors_mb() -> float:
    """MB of all tensors that are alive, each storage once."""
    tensors = (one for one in gc.get_objects() if issubclass(type(one), torch.Tensor))
    dense = (one for one in tensors if one.layout == torch.strided and one.device.type == "cpu")
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in dense}
    return sum(storages.values()) / 2**20
