"""From the resolution of the latent to that of the image, without inventing values.

`upsample` interpolates. `guided_upsample` lets the edges of the image decide where a map changes:
within each small window the map is taken to be linear in the colours of the image, fitted at low
resolution and applied at full resolution. This is the guided filter of He, Sun and Tang ("Guided
Image Filtering", TPAMI 2013, with the colour guide of its section 3.5) in the fast form of He and
Sun (arXiv 1505.00996), which is also a joint upsampling. All sums are box filters.

Both keep every value between the smallest and the largest of its neighbourhood in the map they
came from, so that a peak is never higher in the picture than in the data.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..map_checks import as_float, check_maps, check_number, check_whole, displayable

__all__ = ["guided_upsample", "upsample"]


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes maps by bilinear interpolation that cannot overshoot; smaller sizes are averaged.

    Arguments:
        maps: Shape (B, h, w), any unit.
        size: Height and width wanted, in pixels.

    Returns:
        In the unit of the maps, shape (B, *size). Constant maps stay exactly constant.

    Raises:
        ValueError: If the maps are not finite or not (B, h, w), or the size is not positive.
    """
    check_maps(maps)
    whole = all(isinstance(side, (int, np.integer)) for side in size)
    if len(size) != 2 or not whole or min(size) < 1:
        raise ValueError(f"A map cannot be resized to {size}; both sides need at least one pixel.")
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps.float()
    return _within_neighbourhood(_resize(maps.float()[:, None], size)[:, 0], maps)


def guided_upsample(
    maps: Tensor, images: Tensor, radius: int = 1, smoothness: float = 1e-3
) -> Tensor:
    """Brings maps to the resolution of the images, with steps where the images have edges.

    Made to be looked at: where the image has no edge the map is averaged over a few of its pixels,
    so that its noise goes, and a small peak gets a little lower. Read values off `upsample`.

    Arguments:
        maps: Shape (B, h, w), any unit; scaling or shifting it scales or shifts the result.
        images: The guides, RGB in [0, 1], shape (B, H, W, 3) or (1, H, W, 3).
        radius: Half the side of a window, in pixels of the map. More is smoother, lower at peaks.
        smoothness: Variance of the image, squared units of [0, 1], below which it is taken for
            texture and not for an edge.

    Returns:
        In the unit of the maps, shape (B, H, W). Constant maps stay exactly constant. A map that
        has the resolution of the image already is returned as it is.

    Raises:
        ValueError: If shapes do not fit, the maps are not finite, or radius or smoothness are out
            of range.
    """
    check_maps(maps)
    guides = displayable(images).movedim(-1, 1)
    check_whole(radius, "The radius of the window")
    check_number(smoothness, "The smoothness", 1e-9)
    if images.shape[0] not in (1, maps.shape[0]):
        raise ValueError(
            f"There are {maps.shape[0]} uncertainty maps but {images.shape[0]} images; "
            "pass one image, or one for each map."
        )
    size = (images.shape[1], images.shape[2])
    if tuple(maps.shape[-2:]) == size:
        return maps.float()
    small = _resize(guides, (maps.shape[1], maps.shape[2]))
    fits = [
        _linear_fit(as_float(map_).double().numpy(), guide.double().numpy(), radius, smoothness)
        for map_, guide in zip(maps, small.expand(maps.shape[0], -1, -1, -1), strict=True)
    ]
    coefficients = _resize(torch.from_numpy(np.stack(fits)), size)
    result = (coefficients[:, :3] * guides).sum(dim=1) + coefficients[:, 3]
    return _within_neighbourhood(result.float(), maps)


def _resize(stack: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(
        stack, size, mode="bilinear", align_corners=False, antialias=True
    )


def _within_neighbourhood(result: Tensor, maps: Tensor) -> Tensor:
    """Clamps to the range of the 3 x 3 pixels of the map around each pixel of the result."""
    size = (result.shape[-2], result.shape[-1])
    padded = functional.pad(maps.float()[:, None], (1, 1, 1, 1), mode="replicate")
    highest = functional.max_pool2d(padded, 3, stride=1)
    lowest = -functional.max_pool2d(-padded, 3, stride=1)
    low, high = (_resize(bound, size)[:, 0] for bound in (lowest, highest))
    result = torch.minimum(torch.maximum(result, low), high)
    # Interpolated bounds are off by a rounding; the extremes of the map itself are not.
    least, most = maps.float().amin(dim=(1, 2)), maps.float().amax(dim=(1, 2))
    return torch.minimum(torch.maximum(result, least[:, None, None]), most[:, None, None])


def _linear_fit(
    target: NDArray[np.float64], guide: NDArray[np.float64], radius: int, smoothness: float
) -> NDArray[np.float64]:
    """Three slopes and an offset of the target on the guide at every pixel, shape (4, h, w)."""
    mean_guide = np.stack([_box(channel, radius) for channel in guide])
    mean_target = _box(target, radius)
    with_target = np.stack([_box(channel * target, radius) for channel in guide])
    covariance = with_target - mean_guide * mean_target
    products = np.stack([[_box(first * second, radius) for second in guide] for first in guide])
    spread = products - mean_guide[:, None] * mean_guide[None, :]
    system = np.moveaxis(spread, (0, 1), (-2, -1)) + smoothness * np.eye(3)
    slopes = np.linalg.solve(system, np.moveaxis(covariance, 0, -1)[..., None])[..., 0]
    slopes = np.moveaxis(slopes, -1, 0)
    offset = mean_target - (slopes * mean_guide).sum(axis=0)
    return np.stack([_box(plane, radius) for plane in (*slopes, offset)])


def _box(plane: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    side = 2 * radius + 1
    mean = cv2.boxFilter(plane, cv2.CV_64F, (side, side), borderType=cv2.BORDER_REFLECT)
    return np.asarray(mean, dtype=np.float64)
