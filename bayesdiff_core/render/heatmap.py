"""Uncertainty maps as pictures: a scale, colours, and an overlay on the image.

Everything is in the layout of an image node: images (B, H, W, 3) in [0, 1], masks (B, H, W) in
[0, 1], maps (B, H, W) in the unit of their signal.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..map_checks import (
    LARGEST,
    check_finite,
    check_maps,
    check_number,
    check_shape,
    displayable,
    percentiles,
)

__all__ = [
    "COLORMAPS",
    "Colormap",
    "ScaleMode",
    "color_table",
    "colorize",
    "normalize",
    "overlay",
    "scale_limits",
]

ScaleMode = Literal["image", "batch", "fixed"]
Colormap = Literal["inferno", "magma", "viridis", "cividis", "turbo"]

COLORMAPS: dict[Colormap, int] = {
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
}


HIGH_PERCENTILE = 99.0
"""Percentile of a map with the last colour: a few extreme pixels do not darken the rest."""


def scale_limits(
    maps: Tensor,
    mode: ScaleMode = "image",
    low_percentile: float = 1.0,
    fixed: tuple[float, float] | None = None,
) -> Tensor:
    """The values that get the first and the last colour.

    Arguments:
        maps: Shape (B, H, W).
        mode: `image` takes the percentiles of each map, so that each shows its own structure;
            `batch` those of all maps together, so that they can be compared; `fixed` takes
            `fixed`, so that pictures of several runs can be compared.
        low_percentile: In [0, `HIGH_PERCENTILE`): the high limit is that percentile. Where fewer
            pixels than that differ from a constant, the whole range is taken.
        fixed: Low and high limit in the unit of the maps.

    Returns:
        Low and high in the unit of the maps, shape (B, 2). They are equal for a constant map.

    Raises:
        ValueError: If the maps are not finite, or the limits are missing or not ascending.
    """
    check_maps(maps)
    if mode == "fixed":
        if fixed is None or not fixed[0] < fixed[1]:
            raise ValueError(
                f"A fixed scale needs a low limit below the high one, but has {fixed}; "
                "enter both in the unit of the map."
            )
        for limit in fixed:
            check_number(limit, "The limit of a fixed scale", -LARGEST, LARGEST)
        return torch.tensor([fixed], dtype=torch.float32).repeat(maps.shape[0], 1)
    if mode not in ("image", "batch"):
        raise ValueError(f"The scale is one of image, batch and fixed, not {mode!r}.")
    if not low_percentile < HIGH_PERCENTILE:
        raise ValueError(
            f"The low percentile ({low_percentile}) must be below the high one "
            f"({HIGH_PERCENTILE})."
        )
    robust = percentiles(maps, (low_percentile, HIGH_PERCENTILE), shared=mode == "batch")
    whole = percentiles(maps, (0.0, 100.0), shared=mode == "batch")
    return torch.where(_is_flat(robust)[:, None], whole, robust)


def normalize(maps: Tensor, limits: Tensor) -> Tensor:
    """Maps on the scale of `limits`: 0 at the low and 1 at the high one, clamped outside.

    Arguments:
        maps: Shape (B, H, W).
        limits: From `scale_limits`, shape (B, 2) or (1, 2).

    Returns:
        In [0, 1], shape (B, H, W); 0 where the limits are equal: nothing stands out.

    Raises:
        ValueError: If maps or limits are not finite, or there is no pair of limits for each.
    """
    check_maps(maps)
    check_shape(limits, "The limits", "*S")
    if limits.ndim != 2 or limits.shape[0] not in (1, maps.shape[0]) or limits.shape[1] != 2:
        raise ValueError(
            f"Each of the {maps.shape[0]} maps needs a low and a high limit, but the limits have "
            f"the shape {tuple(limits.shape)}; take them from scale_limits."
        )
    check_finite(limits, "The limits")
    limits = limits.float()
    low, high = limits.unsqueeze(-1).unsqueeze(-1).unbind(dim=1)
    flat = _is_flat(limits)[:, None, None]
    unit = (maps.float() - low) / torch.where(flat, torch.ones_like(high), high - low)
    return torch.where(flat, torch.zeros_like(unit), unit.clamp(0.0, 1.0))


def colorize(maps: Tensor, limits: Tensor, colormap: Colormap = "inferno") -> Tensor:
    """Maps in colour.

    The default is inferno: its luminance rises evenly over the widest range of all, from black
    to pale yellow, so that an unsure spot glows out of an overlay and the sure part falls back,
    and a grey print keeps the order. Cividis rises as evenly and looks the same to readers with
    and without colour vision deficiency, but it spans blue to yellow with less contrast. Turbo
    separates more values to the eye; its luminance goes up and down again, so that it misleads
    in grey.

    Arguments:
        maps: Shape (B, H, W).
        limits: From `scale_limits`, shape (B, 2).
        colormap: One of `COLORMAPS`.

    Returns:
        RGB in [0, 1], float32, shape (B, H, W, 3).

    Raises:
        ValueError: If the maps are not finite, or the colormap is unknown.
    """
    table = torch.from_numpy(color_table(colormap).astype(np.float32) / 255.0)
    # Between two of the 256 colours lies a blend: on a smooth map their steps would show.
    place = normalize(maps, limits) * 255.0
    below = place.floor().clamp(max=254.0)
    index = below.long()
    return torch.lerp(table[index], table[index + 1], (place - below)[..., None])


def color_table(colormap: Colormap) -> NDArray[np.uint8]:
    """The 256 colours of a colormap.

    Arguments:
        colormap: One of `COLORMAPS`.

    Returns:
        RGB from 0 to 255, shape (256, 3).

    Raises:
        ValueError: If the colormap is unknown.
    """
    if colormap not in COLORMAPS:
        raise ValueError(f"No colormap {colormap!r}; choose one of {', '.join(COLORMAPS)}.")
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLORMAPS[colormap])
    return np.ascontiguousarray(ramp[:, 0, ::-1], dtype=np.uint8)


def overlay(
    images: Tensor, heat: Tensor, opacity: float = 0.7, strength: Tensor | None = None
) -> Tensor:
    """Heat over images.

    Arguments:
        images: RGB in [0, 1], shape (B, H, W, 3).
        heat: From `colorize`, same shape.
        opacity: 0 returns the images to the bit, 1 covers them.
        strength: Factor on the opacity of each pixel in [0, 1], shape (B, H, W); with the
            normalized map the sure regions stay clear.

    Returns:
        RGB in [0, 1], shape (B, H, W, 3).

    Raises:
        ValueError: If the shapes differ, the strength is not finite, or the opacity lies outside
            [0, 1].
    """
    images, heat = displayable(images), displayable(heat, "The heatmap")
    if heat.shape != images.shape:
        raise ValueError(
            f"The heatmap has the shape {tuple(heat.shape)} but the images {tuple(images.shape)}; "
            "upsample the map to the size of the images first."
        )
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"The opacity lies between 0 and 1, but is {opacity}.")
    if strength is None:
        return torch.lerp(images, heat, opacity)
    check_shape(strength, "The strength", *images.shape[:3])
    check_maps(strength, "The strength")
    return torch.lerp(images, heat, (opacity * strength.float().clamp(0.0, 1.0))[..., None])


def _is_flat(limits: Tensor) -> Tensor:
    """Whether two limits differ by no more than rounding, shape (B,)."""
    return limits[:, 1] - limits[:, 0] <= 1e-6 * limits.abs().amax(dim=1)
