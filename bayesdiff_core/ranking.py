"""Scores of images from their maps, their order, and which of them to keep."""

from __future__ import annotations

import math
import sys
from typing import Literal

import torch
from torch import Tensor

from .map_checks import check_maps, check_shape, check_whole

__all__ = ["Direction", "Pooling", "keep_count", "keep_percent", "pool", "rank"]

Direction = Literal["ascending", "descending"]
Pooling = Literal["mean", "top10"]

_TOP_SHARE = 0.1


def pool(maps: Tensor, pooling: Pooling = "top10", masks: Tensor | None = None) -> Tensor:
    """One score for each map.

    `top10` averages the tenth of the area with the highest values: a small bad region counts
    however much sure background surrounds it. The last pixel of the tenth counts with the
    fraction that is left, so that the score does not depend on the resolution.

    Arguments:
        maps: Shape (B, H, W).
        pooling: `mean` or `top10`.
        masks: Weights of the pixels in [0, 1], shape (B, H, W); the tenth is that of the mask.

    Returns:
        In the unit of the maps, shape (B,); NaN where a mask is empty: there is no score.

    Raises:
        ValueError: If the maps are not finite, or the masks have another shape.
    """
    check_maps(maps, largest=math.inf)
    values = maps.double().flatten(1)
    weights = torch.ones_like(values)
    if masks is not None:
        check_maps(masks, "The mask")
        if masks.shape != maps.shape:
            raise ValueError(
                f"The mask has the shape {tuple(masks.shape)} but the map "
                f"{tuple(maps.shape)}; resize the mask to the map first."
            )
        weights = masks.double().clamp(0.0, 1.0).flatten(1)
    if pooling == "top10":
        weights = _of_the_top(values, weights)
    elif pooling != "mean":
        raise ValueError(f"A map is pooled by mean or top10, not by {pooling!r}.")
    return ((values * weights).sum(dim=1) / weights.sum(dim=1)).float()


def rank(scores: Tensor, direction: Direction = "ascending") -> Tensor:
    """The order of images by their scores.

    Arguments:
        scores: Any unit, shape (B,). NaN means that there is no score.
        direction: `ascending` puts the lowest first: for the signals of this package the best.

    Returns:
        Indices of the images, int64, shape (B,). Equal scores keep their order; images without
        a score come last in either direction.

    Raises:
        ValueError: If the scores are not one number an image, or the direction is unknown.
    """
    if isinstance(scores, Tensor) and scores.ndim != 1:
        raise ValueError(
            f"Ranking needs one score an image, but the scores have the shape "
            f"{tuple(scores.shape)}; pool the maps first."
        )
    check_shape(scores, "The scores", "B?")
    if direction not in ("ascending", "descending"):
        raise ValueError(f"Scores are ranked ascending or descending, not {direction!r}.")
    keys = scores.double() if direction == "ascending" else -scores.double()
    # Infinite scores are scores: NaN must not tie with them, hence the second key.
    order = torch.argsort(keys.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf), stable=True)
    return order[torch.argsort(scores.isnan()[order].long(), stable=True)]


def keep_count(order: Tensor, count: int) -> Tensor:
    """The first images of an order.

    Arguments:
        order: From `rank`, shape (B,).
        count: How many to keep.

    Returns:
        Shape (min(count, B),).

    Raises:
        ValueError: If `count` is no whole number from one.
    """
    check_shape(order, "The order", "B?")
    check_whole(count, "The number of images to keep", -sys.maxsize)
    if count < 1:
        raise ValueError(f"At least one image must be kept, but {count} were asked for.")
    return order[:count]


def keep_percent(order: Tensor, percent: float) -> Tensor:
    """The first images of an order, as a share of it.

    Arguments:
        order: From `rank`, shape (B,).
        percent: In (0, 100], of all images; rounded up to whole ones.

    Returns:
        Indices of the images that are kept.

    Raises:
        ValueError: If `percent` is not in (0, 100].
    """
    check_shape(order, "The order", "B?")
    if not 0.0 < percent <= 100.0:
        raise ValueError(f"The share to keep lies above 0 and up to 100 percent, not {percent}.")
    # 16.1 percent of 1000 is 161, though the product in floating point is a little more.
    return order[: math.ceil(len(order) * percent / 100.0 - 1e-9)]


def _of_the_top(values: Tensor, weights: Tensor) -> Tensor:
    """The weights, cut down to the highest values until a tenth of their sum is left."""
    order = values.argsort(dim=1, descending=True)
    ordered = weights.gather(1, order)
    before = ordered.cumsum(dim=1) - ordered
    left = _TOP_SHARE * weights.sum(dim=1, keepdim=True) - before
    return torch.zeros_like(weights).scatter(1, order, left.clamp(min=0.0).minimum(ordered))
