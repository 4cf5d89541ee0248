"""Checks at the door of public functions, and percentiles of uncertainty maps (B, H, W).

A wrong argument is refused with a sentence that says what is wrong and what to do, before numpy,
torch or OpenCV find it in words of their own.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "LARGEST",
    "as_float",
    "check_finite",
    "check_images",
    "check_labels",
    "check_maps",
    "check_number",
    "check_shape",
    "check_whole",
    "displayable",
    "percentiles",
]

LARGEST = 1e30
"""Values of a map beyond it are refused: differences of them leave single precision."""

_DIVERGED = (
    "the run that made it diverged: look at its image, and sample again with a lower guidance "
    "scale or more steps."
)


def check_shape(tensor: Tensor, name: str, *shape: int | str) -> None:
    """Refuses what is not a tensor of real numbers in a shape.

    Arguments:
        tensor: The argument.
        name: How the error names it, beginning a sentence.
        shape: A number is the size of an axis, a letter any size but 0, a letter with a question
            mark any size. A last "*S" stands for the axes of space, at least one.

    Raises:
        ValueError: If it is no tensor, holds complex numbers, or has another shape.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(
            f"{name} must be a tensor, not of type {type(tensor).__name__}; convert it with "
            "torch.as_tensor."
        )
    if tensor.is_complex():
        raise ValueError(f"{name} must hold real numbers, not complex ones; take their absolute.")
    found, wanted = tuple(tensor.shape), list(shape)
    if wanted and wanted[-1] == "*S":
        wanted += ["*S"] * (len(found) - len(wanted))
    fits = len(found) == len(wanted) and all(
        (size > 0 or want.endswith("?")) if isinstance(want, str) else size == want
        for size, want in zip(found, wanted, strict=True)
    )
    if not fits:
        listed = ", ".join(str(want).rstrip("?") for want in shape)
        raise ValueError(
            f"{name} must have the shape ({listed}), not {found}; pass what "
            "belongs to the same images, with all its axes, none of them empty."
        )


def check_finite(tensor: Tensor, name: str) -> None:
    """Refuses NaN and infinite values.

    Arguments:
        tensor: Small, or scanned anyway.
        name: How the error names it, beginning a sentence.

    Raises:
        ValueError: If a value is not finite.
    """
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite, but {bad} values are NaN or infinite; take them from maps "
            "that are finite."
        )


def check_maps(maps: Tensor, name: str = "The uncertainty map", largest: float = LARGEST) -> None:
    """Refuses what is not a finite batch of maps.

    Arguments:
        maps: Shape (B, H, W).
        name: How the error names them, beginning a sentence.
        largest: Magnitude that no value may exceed.

    Raises:
        ValueError: If the shape is another, the batch is empty, or a value is not finite or too
            large to be compared.
    """
    if isinstance(maps, Tensor) and maps.ndim != 3:
        raise ValueError(
            f"{name} must have the shape (batch, height, width), but has {tuple(maps.shape)}; "
            "add the batch axis, or reduce the channels first."
        )
    if isinstance(maps, Tensor) and maps.numel() == 0:
        raise ValueError(f"{name} is empty, its shape is {tuple(maps.shape)}; pass at least one.")
    check_shape(maps, name, "B", "H", "W")
    if not torch.isfinite(maps).all():
        bad = int((~torch.isfinite(maps)).sum())
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite; {_DIVERGED}")
    peak = max(abs(float(end)) for end in as_float(maps).aminmax())
    if peak > largest:
        raise ValueError(f"{name} holds values as large as {peak:.3g}; {_DIVERGED}")


def check_images(images: Tensor, name: str = "The image") -> None:
    """Refuses what is not a batch of RGB images.

    Arguments:
        images: Shape (B, H, W, 3).
        name: How the error names them, beginning a sentence.

    Raises:
        ValueError: If the shape is another.
    """
    if isinstance(images, Tensor) and (images.ndim != 4 or images.shape[-1] != 3):
        raise ValueError(
            f"{name} must have the shape (batch, height, width, 3), but has "
            f"{tuple(images.shape)}; drop the alpha channel, or add the batch axis."
        )
    check_shape(images, name, "B", "H", "W", 3)


def displayable(images: Tensor, name: str = "The image") -> Tensor:
    """Images as a screen shows them.

    Arguments:
        images: Shape (B, H, W, 3).
        name: How the error names them, beginning a sentence.

    Returns:
        RGB in [0, 1], float32, same shape: what lies outside is cut off, NaN is black. Images in
        [0, 1] are the same to the bit.

    Raises:
        ValueError: If the shape is another.
    """
    check_images(images, name)
    return images.detach().float().nan_to_num(nan=0.0).clamp(0.0, 1.0)


def check_labels(labels: Tensor, name: str, *shape: int | str) -> None:
    """Refuses what does not number regions or candidates by whole numbers in a shape.

    Arguments:
        labels: The argument.
        name: How the error names them, beginning a sentence.
        shape: See `check_shape`.

    Raises:
        ValueError: If the shape is another, or the numbers are not of a signed integer type.
    """
    check_shape(labels, name, *shape)
    if labels.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise ValueError(
            f"{name} must hold whole numbers with a sign, not {labels.dtype}; convert them with "
            ".long()."
        )


def check_number(value: float, name: str, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuses what is not a finite number in a range.

    Arguments:
        value: The argument.
        name: How the error names it, beginning a sentence.
        low: Smallest value.
        high: Largest value.

    Raises:
        ValueError: If it is no number, NaN, infinite, or outside.
    """
    try:
        fits = math.isfinite(value) and low <= value <= high
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a number {_range(low, high)}, not {value}.")


def check_whole(value: int, name: str, low: int = 0, high: float = math.inf) -> None:
    """Refuses what is not a whole number in a range.

    Arguments:
        value: The argument.
        name: How the error names it, beginning a sentence.
        low: Smallest value.
        high: Largest value.

    Raises:
        ValueError: If it is not of an integer type, or outside.
    """
    try:
        fits = low <= operator.index(value) <= high
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a whole number {_range(low, high)}, not {value}.")


def as_float(tensor: Tensor) -> Tensor:
    """A tensor in single or double precision, which every function of numpy and torch takes.

    Arguments:
        tensor: Of any real type.

    Returns:
        Its values in the precision it has, else in float32; without a gradient.
    """
    values = tensor.detach()
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def percentiles(maps: Tensor, levels: Sequence[float], shared: bool = False) -> Tensor:
    """Percentiles of the pixels of each map.

    Arguments:
        maps: Shape (B, H, W).
        levels: L percentiles in [0, 100].
        shared: Whether all maps of the batch are pooled, so that they get the same numbers.

    Returns:
        In the unit of the maps, shape (B, L).

    Raises:
        ValueError: If the shape is another, or a level lies outside [0, 100].
    """
    check_shape(maps, "The uncertainty map", "B", "H", "W")
    if not all(0.0 <= level <= 100.0 for level in levels):
        raise ValueError(f"Percentiles lie between 0 and 100, but {list(levels)} were given.")
    # torch.quantile refuses more than 2^24 values, which four images of 2048 pixels have.
    values = as_float(maps).cpu().numpy().reshape(1 if shared else maps.shape[0], -1)
    found = np.percentile(values, list(levels), axis=1).T.astype(np.float32)
    return torch.from_numpy(found.copy()).expand(maps.shape[0], -1).contiguous()


def _range(low: Any, high: Any) -> str:
    if math.isinf(low) and math.isinf(high):
        return "that is finite"
    return f"of {low} or more" if math.isinf(high) else f"between {low} and {high}"
