"""The connected regions of a mask at latent resolution: which pixels, where they lie, scores.

A soft edge goes with the region it belongs to, so that every pixel has exactly one region.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ..map_checks import as_float, check_finite, check_labels, check_shape
from ..mask import Box, regions

__all__ = ["region_boxes", "region_labels", "region_scores"]


def region_labels(mask: Tensor) -> Tensor:
    """Which region (B, *S) each pixel of a soft mask (B, 1, *S) belongs to; 0 where it is 0.

    Regions are the connected parts where the mask is at least 0.5, numbered from 1, the largest
    first, and what is fainter goes to the nearest of them. A faint part that touches none is a
    region of its own. Frames of a video share their regions: those of the union of all frames.

    Raises ValueError where the shape is another or a value is not finite.
    """
    check_shape(mask, "The mask", "B", 1, "*S")
    check_finite(mask, "The mask")
    flat = mask[:, 0].detach().cpu().float()
    height = flat.shape[-2] if flat.ndim > 2 else 1
    frames = flat.reshape(len(flat), -1, height, flat.shape[-1])
    labels = torch.stack([_partition(union) for union in frames.amax(1)])
    spread = labels[:, None].expand_as(frames).reshape_as(flat)
    return torch.where(flat > 0, spread, torch.zeros_like(spread))


def _partition(mask: Tensor) -> Tensor:
    """Labels (H, W) of one soft mask."""
    support = regions((mask > 0).float()[None]).labels[0]
    held = torch.unique(support[mask >= 0.5])
    # A faint part without a core is its own core.
    cores = (mask >= 0.5) | ((support > 0) & ~torch.isin(support, held))
    core = regions(cores.float()[None]).labels[0].numpy()
    if core.max() <= 1:
        return torch.from_numpy(core.max() * (mask > 0).numpy().astype(np.int32))
    _, nearest = cv2.distanceTransformWithLabels(
        (core == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(nearest.max() + 1, dtype=np.int32)
    owner[nearest[core > 0]] = core[core > 0]
    return torch.from_numpy(owner[nearest] * (mask > 0).numpy().astype(np.int32))


def region_boxes(labels: Tensor) -> list[list[Box]]:
    """Where the regions of labels (B, *S) lie, in pixels of a frame: for each image its regions.

    Soft edges are part of a region. A region of a video is what its frames cover together.

    Raises ValueError where the labels are not those of `region_labels`.
    """
    _check_regions(labels, "B", "*S")
    height = labels.shape[-2] if labels.ndim > 2 else 1
    frames = labels.reshape(len(labels), -1, height, labels.shape[-1])
    return [
        [_box((image == region).any(0), region) for region in range(1, int(image.max()) + 1)]
        for image in frames
    ]


def _check_regions(labels: Tensor, *shape: int | str) -> None:
    check_labels(labels, "The labels of regions", *shape)
    if int(labels.min()) < 0:
        raise ValueError(
            f"Regions are numbered from 1, and 0 is outside, but a label is {int(labels.min())}; "
            "take them from region_labels."
        )


def _box(covered: Tensor, region: int) -> Box:
    """Of a region (H, W)."""
    rows, columns = covered.nonzero().unbind(1)
    if not len(rows):
        raise ValueError(
            f"The labels leave out region {region}, though there are higher ones; take them from "
            "region_labels."
        )
    top, left = int(rows.min()), int(columns.min())
    width, height = int(columns.max()) + 1 - left, int(rows.max()) + 1 - top
    return Box(left, top, width, height, len(rows))


def region_scores(maps: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Mean of maps (N, B, *S) over each region, weighted by the mask: (N, B, R).

    R is the largest number of regions of an image; NaN where an image has fewer.

    Raises ValueError where the shapes do not fit.
    """
    _check_regions(labels, "B", "*S")
    check_shape(maps, "The maps", "N", *labels.shape)
    check_shape(mask, "The mask", len(labels), 1, *labels.shape[1:])
    maps, count = as_float(maps), int(labels.max())
    places = labels.flatten(1).long()
    weights = mask[:, 0].to(maps).flatten(1)

    def sums(values: Tensor) -> Tensor:
        shape = (*values.shape[:-1], count + 1)
        index = places.expand(values.shape)
        return values.new_zeros(shape).scatter_add(-1, index, values)[..., 1:]

    return sums(maps.flatten(2) * weights) / sums(weights)
