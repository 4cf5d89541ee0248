"""Posteriors on disk: one safetensors file with version, layer fingerprint and checksum.

The file holds the tensor `precision` and, in its metadata, the posterior's other fields as JSON.
It is replaced by one rename, so that a reader meets the old file or the new one, each whole. It is
read into memory of its own, and everything in it is checked before it is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from .laplace import LaplacePosterior

__all__ = ["FORMAT_VERSION", "PosteriorFileError", "load_posterior", "save_posterior"]

FORMAT_VERSION = 2
"""Version 1, without a checksum, is still read."""

PART_SUFFIX = ".bayesdiff.part"
"""Ends the names of files that are being written."""

STALE_AFTER = 3600
"""Seconds after which no save is still at work on such a file."""

_FORMAT = "bayesdiff.laplace"
_FIELDS = ("prior_precision", "noise_variance", "rows", "positions", "log_evidence", "fingerprint")
_HEADER_LIMIT = 1 << 20  # bytes; a posterior's header has less than a thousand


class PosteriorFileError(ValueError):
    """A posterior cannot be read from its file, or cannot be written there."""


def save_posterior(posterior: LaplacePosterior, path: str | Path) -> None:
    """Writes a posterior; a file that is there is replaced only by a complete one.

    Processes that save under one name at the same time replace each other's file as a whole. What
    a save that was killed left in the folder is removed once it is older than an hour.

    Arguments:
        posterior: Of either structure.
        path: Of the file (.safetensors); missing folders are made.

    Raises:
        PosteriorFileError: If the file cannot be written, or `load_posterior` would refuse it.
    """
    path = Path(path)
    try:
        posterior.check()
    except ValueError as error:
        raise PosteriorFileError(f"This posterior is not saved. {error} Fit it again.") from error
    content = _serialized(posterior)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path.parent)
        _replace(path, content)
    except (OSError, ValueError, RecursionError) as error:
        raise PosteriorFileError(
            f"The posterior cannot be written as {path.name!r:.200} to the folder "
            f"{str(path.parent)!r:.400} ({_reason(error)}). Make room there and allow writing, "
            "or take another name."
        ) from error


def load_posterior(path: str | Path) -> LaplacePosterior:
    """Reads what `save_posterior` wrote, into memory of its own.

    Returns:
        The posterior, equal to the saved one to the bit.

    Raises:
        PosteriorFileError: If the file cannot be read, is something else, has another version,
            was changed since it was saved, or holds numbers that no fit gives.
    """
    try:
        with open(path, "rb") as file:
            header = _read_header(file)
            metadata = _metadata_in(path, header)
            precision = _read_precision(file, header)
    except PosteriorFileError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise PosteriorFileError(
            f"{path} cannot be read as safetensors ({_reason(error)}); fit it again."
        ) from error
    try:
        posterior = LaplacePosterior(precision=precision, **_fields_in(metadata))
        _check_checksum(posterior, metadata)
        posterior.check()
    except (ValueError, RecursionError) as error:
        raise PosteriorFileError(
            f"{path} is damaged. {_reason(error).rstrip('.')}. Fit it again."
        ) from error
    return posterior


def _fields_of(posterior: LaplacePosterior) -> dict[str, Any]:
    return {name: getattr(posterior, name) for name in _FIELDS}


def _serialized(posterior: LaplacePosterior) -> bytes:
    metadata = {
        "format": _FORMAT,
        "version": str(FORMAT_VERSION),
        "posterior": json.dumps(_fields_of(posterior)),
        "sha256": _checksum(posterior),
    }
    return save({"precision": posterior.precision.detach().cpu().contiguous()}, metadata)


def _checksum(posterior: LaplacePosterior) -> str:
    """SHA-256 of the fields and the shape as canonical JSON, followed by the tensor's bytes."""
    precision = posterior.precision.detach().cpu().contiguous()
    fields = {**_fields_of(posterior), "shape": list(precision.shape)}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    digest.update(precision.numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


def _remove_stale(folder: Path) -> None:
    """Removes files of saves that were killed; those of saves at work are younger."""
    with suppress(OSError):
        for part in folder.glob(f".*{PART_SUFFIX}"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > STALE_AFTER:
                    part.unlink()


def _replace(path: Path, content: bytes) -> None:
    """Writes under a name of its own in the same folder, and renames once all is on the disk."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{PART_SUFFIX}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError, ValueError):
            temporary.unlink()
        raise


def _read_header(file: io.BufferedReader) -> dict[str, Any]:
    """The header of a safetensors file: eight bytes with its length, then a JSON object."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(_HEADER_LIMIT, _bytes_left(file)):
        raise ValueError("its header is cut off or damaged")
    return _json_object(file.read(length).decode("utf-8"))


def _bytes_left(file: io.BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size - file.tell()


def _json_object(text: str) -> dict[str, Any]:
    parsed = json.loads(text)
    if not isinstance(parsed, dict):
        raise ValueError("JSON without names in it")
    return parsed


def _metadata_in(path: str | Path, header: dict[str, Any]) -> dict[str, Any]:
    """The metadata, taken out of the header, of a posterior in a version that is known."""
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise PosteriorFileError(f"{path} is not a Laplace posterior; save one with LaplaceFit.")
    version = metadata.get("version")
    if version not in [str(known) for known in range(1, FORMAT_VERSION + 1)]:
        if not isinstance(version, str) or not version.isalnum():
            version = "unknown"
        raise PosteriorFileError(
            f"{path} has format version {version!s:.20}, this extension reads 1 to "
            f"{FORMAT_VERSION}. Fit it again."
        )
    return metadata


def _read_precision(file: io.BufferedReader, header: dict[str, Any]) -> Tensor:
    """The file's only tensor, which has to fill it to its end, copied out of it."""
    entry = header.get("precision")
    if len(header) != 1 or not isinstance(entry, dict) or entry.get("dtype") != "F32":
        raise ValueError("it holds something else than one tensor `precision` in float32")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError("its tensor has no valid shape")
    size = 4 * math.prod(shape)
    if entry.get("data_offsets") != [0, size] or _bytes_left(file) != size:
        raise ValueError("it is cut off, or its tensor has another size than its header says")
    numbers = np.empty(math.prod(shape), "<f4")
    if file.readinto(numbers.data.cast("B")) != size:
        raise ValueError("it was cut off while it was read")
    return torch.from_numpy(numbers.astype(np.float32, copy=False)).reshape(shape)


def _fields_in(metadata: dict[str, Any]) -> dict[str, Any]:
    text = metadata.get("posterior")
    fields = _json_object(text) if isinstance(text, str) else {}
    if set(fields) != set(_FIELDS):
        raise ValueError("It has other fields than a posterior.")
    return fields


def _check_checksum(posterior: LaplacePosterior, metadata: dict[str, Any]) -> None:
    expected = None if metadata["version"] == "1" else _checksum(posterior)
    if metadata.get("sha256") != expected:
        raise ValueError("Its content is not what its checksum was made of.")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
