"""From uncertainty maps to the regions to sample again.

The steps are plain functions, applied in this order: `threshold_mask` (or `above`),
`minimum_area`, `grow`, `regions`, `feather`. A pixel belongs to a region where its mask is at
least 0.5. Distances are Euclidean and exact (the distance transform of Felzenszwalb and
Huttenlocher), so that the time does not depend on how far a mask grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .map_checks import check_finite, check_maps, check_number, check_shape, percentiles

__all__ = [
    "Box",
    "Regions",
    "above",
    "feather",
    "grow",
    "minimum_area",
    "regions",
    "threshold_mask",
]

_INSIDE = 0.5


class Box(NamedTuple):
    """Smallest upright rectangle around a region, in pixels, and how many of them it covers."""

    x: int
    y: int
    width: int
    height: int
    area: int


@dataclass(frozen=True)
class Regions:
    """Connected regions of a batch of masks.

    Attributes:
        boxes: For each image its regions, the largest first, equal ones from top to bottom.
        labels: 0 outside, else 1 + the place in `boxes`, int32, shape (B, H, W).
    """

    boxes: list[list[Box]]
    labels: Tensor


def above(maps: Tensor, thresholds: Tensor) -> Tensor:
    """1 where a map lies above its threshold, 0 elsewhere.

    Above means strictly above: where nothing stands out, as in a constant map, nothing is masked
    by a percentile. Maps may be negative.

    Arguments:
        maps: Shape (B, H, W).
        thresholds: In the unit of the maps, shape (B,).

    Returns:
        0 or 1, float32, shape (B, H, W).

    Raises:
        ValueError: If the maps are not finite, or there is no threshold for each.
    """
    check_maps(maps)
    check_shape(thresholds, "The thresholds", len(maps))
    check_finite(thresholds, "The thresholds")
    return (maps.float() > thresholds[:, None, None]).float()


def threshold_mask(maps: Tensor, percentile: float) -> Tensor:
    """1 where a map lies above a percentile of its pixels, 0 elsewhere.

    Arguments:
        maps: Shape (B, H, W).
        percentile: In [0, 100]; 90 masks the highest tenth of each map.

    Returns:
        0 or 1, float32, shape (B, H, W).

    Raises:
        ValueError: If the maps are not finite, or the percentile lies outside [0, 100].
    """
    check_maps(maps)
    return above(maps, percentiles(maps, (percentile,))[:, 0])


def grow(masks: Tensor, pixels: float) -> Tensor:
    """Moves the border of every region outwards by a distance, or inwards if it is negative.

    Arguments:
        masks: In [0, 1], shape (B, H, W).
        pixels: Distance. The border of the picture is no border of a region.

    Returns:
        In [0, 1], shape (B, H, W): at least `masks` when growing, at most when shrinking.

    Raises:
        ValueError: If the masks are not finite, or the distance is not.
    """
    check_maps(masks, "The mask")
    check_number(pixels, "The distance by which a mask grows")
    bare = masks.float().clamp(0.0, 1.0)
    if pixels >= 0:
        return torch.maximum(bare, (_distance_to(masks >= _INSIDE) <= pixels).float())
    return torch.minimum(bare, (_distance_to(masks < _INSIDE) > -pixels).float())


def minimum_area(masks: Tensor, pixels: int) -> Tensor:
    """Drops the regions that cover fewer pixels than `pixels`; the others stay as they are.

    Arguments:
        masks: In [0, 1], shape (B, H, W).
        pixels: Smallest number of pixels of a region that stays.

    Returns:
        In [0, 1], shape (B, H, W).

    Raises:
        ValueError: If the masks are not finite, or the number is not.
    """
    check_number(pixels, "The smallest area of a region")
    found = regions(masks)
    result = masks.detach().float().clamp(0.0, 1.0)
    for mask, labels, boxes in zip(result, found.labels, found.boxes, strict=True):
        kept = sum(box.area >= pixels for box in boxes)
        mask[labels > kept] = 0.0
    return result


def feather(masks: Tensor, pixels: float) -> Tensor:
    """Lets every region fade out around itself, so that what is sampled again blends in.

    A region stays 1. Outside it the mask is a Gaussian of the distance with standard deviation
    `pixels` / 3, shifted to end at exactly 0 there: further away nothing is touched.

    Arguments:
        masks: In [0, 1], shape (B, H, W).
        pixels: Distance at which the mask has become 0; 0 leaves the bare regions.

    Returns:
        In [0, 1], float32, shape (B, H, W).

    Raises:
        ValueError: If the masks are not finite, or the distance is negative or not finite.
    """
    check_maps(masks, "The mask")
    if not 0 <= pixels < np.inf:
        raise ValueError(f"A mask is feathered by 0 pixels or more, not by {pixels}.")
    distance = _distance_to(masks >= _INSIDE)
    if pixels == 0:
        return (distance == 0).float()
    bell = torch.exp(-0.5 * (3.0 * distance / pixels).square())
    floor = float(np.exp(-4.5))
    faded = ((bell - floor) / (1.0 - floor)).clamp(0.0, 1.0)
    return torch.where(distance == 0, torch.ones_like(faded), faded)


def regions(masks: Tensor) -> Regions:
    """Connected regions of each mask; pixels that touch at a corner are connected.

    Arguments:
        masks: In [0, 1], shape (B, H, W).

    Returns:
        Boxes, the largest region first, and the label image.

    Raises:
        ValueError: If the masks are not finite.
    """
    check_maps(masks, "The mask")
    found = [_components((mask >= _INSIDE).numpy().astype(np.uint8)) for mask in masks]
    labels = np.stack([image for _, image in found])
    return Regions(boxes=[boxes for boxes, _ in found], labels=torch.from_numpy(labels))


def _components(mask: NDArray[np.uint8]) -> tuple[list[Box], NDArray[np.int32]]:
    _, raw, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    # OpenCV documents no order of the components; their corners give one that stays.
    found = sorted(
        ((Box(*map(int, row)), index) for index, row in enumerate(statistics) if index > 0),
        key=lambda pair: (-pair[0].area, pair[0].y, pair[0].x),
    )
    place = np.zeros(len(statistics), dtype=np.int32)
    for rank, (_, index) in enumerate(found, start=1):
        place[index] = rank
    return [box for box, _ in found], place[raw]


def _distance_to(inside: Tensor) -> Tensor:
    """Distance of every pixel to the nearest one inside, infinite if there is none."""
    distances = [
        cv2.distanceTransform((~mask).numpy().astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        if mask.any()
        else np.full(mask.shape, np.inf, dtype=np.float32)
        for mask in inside
    ]
    return torch.from_numpy(np.stack(distances))
