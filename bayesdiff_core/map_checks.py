"""Validation and percentiles of uncertainty maps (B, H, W)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_images", "check_maps", "percentiles"]


def check_maps(maps: Tensor, name: str = "The uncertainty map") -> None:
    """Refuses what is not a finite batch of maps.

    Arguments:
        maps: Shape (B, H, W).
        name: How the error names them, beginning a sentence.

    Raises:
        ValueError: If the shape is another, the batch is empty, or a value is not finite.
    """
    if maps.ndim != 3:
        raise ValueError(
            f"{name} must have the shape (batch, height, width), but has {tuple(maps.shape)}; "
            "add the batch axis, or reduce the channels first."
        )
    if maps.numel() == 0:
        raise ValueError(f"{name} is empty, its shape is {tuple(maps.shape)}; pass at least one.")
    if not torch.isfinite(maps).all():
        bad = int((~torch.isfinite(maps)).sum())
        raise ValueError(
            f"{name} holds {bad} values that are NaN or infinite; the run that made it diverged: "
            "look at its image, and sample again with a lower guidance scale or more steps."
        )


def check_images(images: Tensor, name: str = "The image") -> None:
    """Refuses what is not a batch of RGB images.

    Arguments:
        images: Shape (B, H, W, 3).
        name: How the error names them, beginning a sentence.

    Raises:
        ValueError: If the shape is another.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"{name} must have the shape (batch, height, width, 3), but has "
            f"{tuple(images.shape)}; drop the alpha channel, or add the batch axis."
        )


def percentiles(maps: Tensor, levels: Sequence[float], shared: bool = False) -> Tensor:
    """Percentiles of the pixels of each map.

    Arguments:
        maps: Shape (B, H, W).
        levels: L percentiles in [0, 100].
        shared: Whether all maps of the batch are pooled, so that they get the same numbers.

    Returns:
        In the unit of the maps, shape (B, L).

    Raises:
        ValueError: If a level lies outside [0, 100].
    """
    if not all(0.0 <= level <= 100.0 for level in levels):
        raise ValueError(f"Percentiles lie between 0 and 100, but {list(levels)} were given.")
    # torch.quantile refuses more than 2^24 values, which four images of 2048 pixels have.
    values = maps.detach().cpu().numpy().reshape(1 if shared else maps.shape[0], -1)
    found = np.percentile(values, list(levels), axis=1).T.astype(np.float32)
    return torch.from_numpy(found.copy()).expand(maps.shape[0], -1).contiguous()
