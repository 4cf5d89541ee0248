"""Posteriors on disk: safetensors with a version and the layer's fingerprint in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .laplace import LaplacePosterior

__all__ = ["FORMAT_VERSION", "load_posterior", "save_posterior"]

FORMAT_VERSION = 1
_FIELDS = ("prior_precision", "noise_variance", "rows", "positions", "log_evidence", "fingerprint")


def save_posterior(posterior: LaplacePosterior, path: str | Path) -> None:
    """Writes a posterior; a file that is there is replaced only by a complete one.

    Arguments:
        posterior: Of either structure.
        path: Of the file (.safetensors); missing folders are made.
    """
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
    """Reads what `save_posterior` wrote.

    Returns:
        The posterior, equal to the saved one to the bit.

    Raises:
        ValueError: If the file is something else, cannot be read, or has another version.
    """
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
