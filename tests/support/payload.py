"""Reads what the viewer reads, for comparing the two."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["colors_of", "header_of", "histogram_of", "maps_of", "percentiles_of"]


def header_of(content: bytes) -> dict[str, Any]:
    return json.loads(content[4 : _start(content)])


def maps_of(content: bytes, layer: dict[str, Any]) -> NDArray[np.float64]:
    """The values of a layer, shape (B, height, width)."""
    shape = (len(layer["low"]), layer["height"], layer["width"])
    codes = _array(content, layer["codes"], "<u2", shape)
    low, step = (np.array(layer[name])[:, None, None] for name in ("low", "step"))
    return low + step * codes


def percentiles_of(content: bytes, layer: dict[str, Any]) -> NDArray[np.float64]:
    """The table of percentiles of a layer, shape (B, levels)."""
    return _array(content, layer["percentiles"], "<f4", (len(layer["low"]), layer["levels"]))


def histogram_of(content: bytes, layer: dict[str, Any]) -> NDArray[np.float64]:
    """The histogram of a layer, shape (B, bins)."""
    return _array(content, layer["histogram"], "<u4", (len(layer["low"]), layer["bins"]))


def colors_of(content: bytes, offset: int) -> NDArray[np.float64]:
    """A table of colours in [0, 255], shape (256, 3)."""
    return _array(content, offset, "u1", (256, 3))


def _start(content: bytes) -> int:
    return 4 + struct.unpack_from("<I", content)[0]


def _array(content: bytes, offset: int, kind: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    count = int(np.prod(shape))
    flat = np.frombuffer(content, kind, count, _start(content) + offset)
    return flat.reshape(shape).astype(np.float64)
