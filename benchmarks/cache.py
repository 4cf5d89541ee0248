"""Tensors that a benchmark computes once and later runs of it read from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from .experiment import replacing

__all__ = ["CACHE", "cached"]

CACHE = Path(__file__).parent.parent / ".cache" / "benchmarks"


def cached(key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by name, computed once and kept in the cache folder under the hash of `key`.

    Arguments:
        key: Everything that the tensors depend on; a change of it computes them anew.
        compute: Called where the cache has nothing under that key.
    """
    path = CACHE / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
    if path.is_file():
        return load_file(path)
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, {"key": key})
    return tensors
