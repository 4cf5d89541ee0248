"""Posteriors on disk: safetensors with a version and the layer's fingerprint in the metadata."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .laplace import LaplacePosterior

__all__ = [
    "FORMAT_VERSION",
    "check_fingerprint",
    "fingerprint",
    "load_posterior",
    "save_posterior",
]

FORMAT_VERSION = 1
_FIELDS = ("prior_precision", "noise_variance", "rows", "positions", "log_evidence", "fingerprint")


def fingerprint(layer_name: str, weights: Tensor) -> str:
    """Name and content of a last layer as a short string."""
    content = weights.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    shape = "x".join(map(str, weights.shape))
    return f"{layer_name}:{shape}:{hashlib.sha256(content).hexdigest()[:16]}"


def check_fingerprint(posterior: LaplacePosterior, expected: str) -> None:
    """Raises ValueError when the posterior was fitted on another last layer than `expected`."""
    if posterior.fingerprint != expected:
        raise ValueError(
            f"This posterior was fitted on the layer {posterior.fingerprint}, the model has "
            f"{expected}. Run LaplaceFit on the model you sample with (LoRAs included)."
        )


def save_posterior(posterior: LaplacePosterior, path: str | Path) -> None:
    """Write `posterior` to `path` (.safetensors), replacing what is there only when whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format": "bayesdiff.laplace",
        "version": str(FORMAT_VERSION),
        "posterior": json.dumps({name: getattr(posterior, name) for name in _FIELDS}),
    }
    temporary = path.with_name(path.name + ".part")
    save_file({"precision": posterior.precision.contiguous()}, str(temporary), metadata)
    temporary.replace(path)


def load_posterior(path: str | Path) -> LaplacePosterior:
    """Read what `save_posterior` wrote. Raises ValueError when it is something else."""
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "bayesdiff.laplace":
                raise ValueError(f"{path} is not a Laplace posterior; save one with LaplaceFit.")
            if metadata["version"] != str(FORMAT_VERSION):
                raise ValueError(
                    f"{path} has format version {metadata['version']}, this extension reads "
                    f"{FORMAT_VERSION}. Fit it again."
                )
            precision = file.get_tensor("precision")
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read as safetensors ({error}); fit it again."
        ) from error
    return LaplacePosterior(precision=precision, **json.loads(metadata["posterior"]))
