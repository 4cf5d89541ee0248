"""Which part of an image is to be sampled again, and the boxes that other nodes take for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .map_checks import check_maps, check_number, check_shape, percentiles
from .mask import Box, above, feather, grow, minimum_area, regions

__all__ = ["Segment", "Selection", "corners", "segments"]

LABEL = "uncertain"


@dataclass(frozen=True)
class Selection:
    """A threshold and what becomes of the pixels above it.

    Attributes:
        percentile: Threshold of each map, in [0, 100]; None if `value` is given.
        value: Threshold in the unit of the maps; None if `percentile` is given.
        grow: Pixels of the image by which regions grow, or shrink if negative.
        minimum_area: Regions with fewer pixels of the image are dropped, before they grow.
        feather: Pixels of the image over which regions fade out around themselves.
    """

    percentile: float | None = 90.0
    value: float | None = None
    grow: float = 0.0
    minimum_area: int = 0
    feather: float = 0.0

    def thresholds(self, maps: Tensor) -> Tensor:
        """The values above which a pixel belongs to the mask.

        Arguments:
            maps: Shape (B, h, w), in their own resolution.

        Returns:
            In the unit of the maps, shape (B,).

        Raises:
            ValueError: If the maps are not finite, or there is not exactly one threshold.
        """
        check_maps(maps)
        if (self.percentile is None) == (self.value is None):
            raise ValueError(
                "A mask needs one threshold: either a percentile or a value in the unit of the "
                "map."
            )
        if self.value is not None:
            check_number(self.value, "The threshold of a mask")
            return torch.full((len(maps),), float(self.value))
        assert self.percentile is not None
        return percentiles(maps, (self.percentile,))[:, 0]

    def regions(self, maps: Tensor, thresholds: Tensor) -> Tensor:
        """The mask before it fades out.

        Arguments:
            maps: In the resolution of the image, shape (B, H, W).
            thresholds: From `thresholds`, shape (B,).

        Returns:
            0 or 1, shape (B, H, W); without small regions, then grown.

        Raises:
            ValueError: If the maps are not finite.
        """
        bare = above(maps, thresholds)
        kept = minimum_area(bare, self.minimum_area) if self.minimum_area > 1 else bare
        return grow(kept, self.grow) if self.grow else kept

    def soften(self, masks: Tensor) -> Tensor:
        """The masks, fading out around their regions.

        Arguments:
            masks: From `regions`, shape (B, H, W).

        Returns:
            In [0, 1], shape (B, H, W).
        """
        return feather(masks, self.feather) if self.feather else masks


class Segment(NamedTuple):
    """One region, with the fields that detailer nodes read by name.

    Attributes:
        cropped_image: None: detailers cut it out themselves.
        cropped_mask: In [0, 1], shape of the crop.
        confidence: In [0, 1].
        crop_region: [left, top, right, bottom] of the crop, in pixels.
        bbox: The same of the region.
        label: `LABEL`.
        control_net_wrapper: None.
    """

    cropped_image: Any
    cropped_mask: NDArray[np.float32]
    confidence: float
    crop_region: list[int]
    bbox: list[int]
    label: str
    control_net_wrapper: Any = None


def corners(masks: Tensor) -> list[list[list[int]]]:
    """The boxes of the regions of masks.

    Arguments:
        masks: In [0, 1], shape (B, H, W).

    Returns:
        For each mask [left, top, right, bottom] of its regions in pixels, the largest first.
    """
    return [[_corners(box) for box in boxes] for boxes in regions(masks).boxes]


def segments(
    masks: Tensor, soft: Tensor, strength: Tensor, around: float = 2.0
) -> list[tuple[tuple[int, int], list[Segment]]]:
    """The regions of masks, in the form that detailer nodes take.

    Arguments:
        masks: Of 0 and 1, shape (B, H, W).
        soft: The same, feathered.
        strength: In [0, 1], shape (B, H, W); its highest value in a region is the confidence.
        around: How many times as long as the box the sides of the crop are.

    Returns:
        For each mask its (height, width) and its regions, the largest first.

    Raises:
        ValueError: If the shapes differ, a value is not finite, or the crop is smaller than the
            region.
    """
    found = regions(masks)
    for name, values in (("The feathered mask", soft), ("The strength", strength)):
        check_shape(values, name, *masks.shape)
        check_maps(values, name)
    check_number(around, "The side of a crop, in sides of its box,", 1.0, 1e6)
    height, width = masks.shape[-2:]
    result = []
    for labels, boxes, fade, heat in zip(found.labels, found.boxes, soft, strength, strict=True):
        items = []
        for place, box in enumerate(boxes, start=1):
            left, top, right, bottom = crop = _around(box, around, height, width)
            # A neighbour's fade may reach into this crop: its own region is cut out.
            others = (labels > 0) & (labels != place)
            part = torch.where(others, torch.zeros_like(fade), fade)[top:bottom, left:right]
            items.append(
                Segment(
                    cropped_image=None,
                    cropped_mask=part.detach().float().numpy().copy(),
                    confidence=min(max(float(heat[labels == place].max()), 0.0), 1.0),
                    crop_region=crop,
                    bbox=_corners(box),
                    label=LABEL,
                )
            )
        result.append(((height, width), items))
    return result


def _corners(box: Box) -> list[int]:
    return [box.x, box.y, box.x + box.width, box.y + box.height]


def _around(box: Box, factor: float, height: int, width: int) -> list[int]:
    across, down = (round((factor - 1) * side / 2) for side in (box.width, box.height))
    return [
        max(0, box.x - across),
        max(0, box.y - down),
        min(width, box.x + box.width + across),
        min(height, box.y + box.height + down),
    ]
