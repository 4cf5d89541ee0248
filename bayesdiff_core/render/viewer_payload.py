"""What the viewer reads: the maps of a batch in one compact binary.

A file is a little-endian uint32, the length n of the header; n bytes of JSON; and arrays, each at
a multiple of four bytes from the end of the header. Maps travel as uint16 codes q with

    value = low + step * q

for each map, which is exact to half a step, 1 / 131070 of the map's range. Beside each map lies
the table of its percentiles, so that the viewer need not sort.

Header:
    version, batch, height, width (of the image), artifact (the signal it stands for),
    evaluations (of the run), colormaps (name -> offset of uint8 (256, 3)),
    signals: a list of layers, steps: a list of layers
Layer:
    name, unit, height, width, codes (offset of uint16 (B, height, width)),
    percentiles (offset of float32 (B, levels)), levels (evenly from 0 to 100, both included),
    low, step, scores (a list of B numbers each), limits (B pairs), batch_limits (a pair),
    histogram (offset of uint32 (B, bins)), bins, edges (B pairs: the histogram's range)
A layer of `steps` has no histogram and its name is the number of its step.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..map_checks import as_float, check_maps, check_shape, check_whole, percentiles
from ..ranking import pool
from ..recording import Recording
from ..step_maps import STEP_UNIT, step_map
from ..uncertainty import Signal
from .heatmap import COLORMAPS, color_table
from .pictures import Look
from .upsample import upsample

__all__ = ["VERSION", "encode", "frames", "recorded_steps"]

VERSION = 1
BINS = 64
LEVELS = 1001
STEP_LEVELS = 101
LONGEST_SIDE = 512
LONGEST_STEP_SIDE = 64
STEP_MAPS = 256
_CODES = 65535


def frames(maps: Tensor) -> Tensor:
    """Maps as a batch of pictures: the frames of a video follow one another.

    Arguments:
        maps: Shape (B, *S), the last two axes those of a picture.

    Returns:
        Shape (N, h, w), N the number of frames of all samples. Maps with one axis of space are
        pictures of one row.

    Raises:
        ValueError: If the shape is another.
    """
    check_shape(maps, "The uncertainty map", "B", "*S")
    return maps.reshape(-1, *(maps.shape[-2:] if maps.ndim > 2 else (1, maps.shape[-1])))


def recorded_steps(recording: Recording, batch: int) -> list[int]:
    """The steps whose maps are sent: evenly spread, the last one included.

    Arguments:
        recording: Of the run.
        batch: Number of images; the more there are, the fewer steps are sent.

    Returns:
        Numbers of steps, counted from 1, ascending.

    Raises:
        ValueError: If there is no image.
    """
    check_whole(batch, "The number of images", 1)
    count = len(recording.denoised)
    wanted = min(count, max(8, STEP_MAPS // batch))
    return sorted({round(step) for step in np.linspace(1, count, wanted).tolist()})


def encode(
    signals: dict[str, Signal],
    artifact: str,
    size: tuple[int, int],
    recording: Recording | None = None,
) -> bytes:
    """The signals of a batch and the steps of its run.

    Arguments:
        signals: Maps (B, *S) by name; those larger than 512 pixels are averaged down.
        artifact: Which of them the signal `artifact` stands for.
        size: Height and width of the images, in pixels.
        recording: Of the run, for the maps at its single steps.

    Returns:
        The file's content.

    Raises:
        ValueError: If there is no signal or a map is not finite.
    """
    if artifact not in signals:
        raise ValueError(f"The signal '{artifact}' is not among {', '.join(signals) or 'none'}.")
    for side in size:
        check_whole(side, "The side of a picture", 1)
    body = _Body()
    layers = [
        _layer(body, name, signal.unit, frames(signal.map), LONGEST_SIDE, LEVELS, BINS)
        for name, signal in signals.items()
    ]
    batch = len(layers[0]["low"])
    steps = []
    for step in recorded_steps(recording, batch) if recording is not None else ():
        maps = frames(step_map(recording, step))  # type: ignore[arg-type]
        steps.append(_layer(body, str(step), STEP_UNIT, maps, LONGEST_STEP_SIDE, STEP_LEVELS))
    colormaps = {name: body.add(color_table(name)) for name in COLORMAPS}
    header = {
        "version": VERSION,
        "batch": batch,
        "height": size[0],
        "width": size[1],
        "artifact": artifact,
        "evaluations": 0 if recording is None else len(recording.denoised),
        "colormaps": colormaps,
        "signals": layers,
        "steps": steps,
    }
    return _file(header, body)


@dataclass
class _Body:
    """Arrays one after another, each at a multiple of four bytes."""

    parts: list[bytes] = field(default_factory=list)
    length: int = 0

    def add(self, array: NDArray[Any]) -> int:
        """Appends an array; returns its offset."""
        offset, data = self.length, array.tobytes()
        data += b"\0" * (-len(data) % 4)
        self.parts.append(data)
        self.length += len(data)
        return offset


def _layer(
    body: _Body, name: str, unit: str, maps: Tensor, longest: int, levels: int, bins: int = 0
) -> dict[str, Any]:
    check_maps(maps)
    scores = pool(maps)
    table = percentiles(maps, np.linspace(0, 100, levels).tolist())
    limits, shared = Look().limits_of(maps), Look(scale="batch").limits_of(maps)[0]
    small = upsample(maps, _fitting((maps.shape[-2], maps.shape[-1]), longest))
    codes, low, step = _quantize(small)
    layer = {
        "name": name,
        "unit": unit,
        "height": small.shape[-2],
        "width": small.shape[-1],
        "codes": body.add(codes),
        "percentiles": body.add(table.numpy().astype("<f4")),
        "levels": levels,
        "low": low,
        "step": step,
        "scores": scores.tolist(),
        "limits": limits.tolist(),
        "batch_limits": shared.tolist(),
    }
    if bins:
        edges = percentiles(maps, (0.0, 99.9)).tolist()
        counts = np.stack([_histogram(m, e, bins) for m, e in zip(maps, edges, strict=True)])
        layer |= {"histogram": body.add(counts), "bins": bins, "edges": edges}
    return layer


def _quantize(maps: Tensor) -> tuple[NDArray[np.uint16], list[float], list[float]]:
    values = as_float(maps).double().numpy()
    low, high = values.min(axis=(1, 2)), values.max(axis=(1, 2))
    step = np.where(high > low, (high - low) / _CODES, 1.0)
    codes = np.rint((values - low[:, None, None]) / step[:, None, None])
    return codes.clip(0, _CODES).astype("<u2"), low.tolist(), step.tolist()


def _histogram(map_: Tensor, edges: Sequence[float], bins: int) -> NDArray[np.uint32]:
    """Pixels in each bin; the last one counts what lies above."""
    low, high = edges
    high = high if high > low else low + max(1.0, 1e-6 * abs(low))
    values = as_float(map_).double().numpy().clip(low, high)
    return np.histogram(values, bins=bins, range=(low, high))[0].astype("<u4")


def _fitting(size: tuple[int, int], longest: int) -> tuple[int, int]:
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _file(header: dict[str, Any], body: _Body) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + b"".join(body.parts)
