"""A batch of uncertainty maps as finished pictures: heat, image, outline and colour bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional

from .compose import color_bar, contour, side_by_side
from .heatmap import Colormap, ScaleMode, colorize, normalize, overlay, scale_limits

__all__ = ["DISPLAYS", "Display", "Look", "draw"]

Display = Literal["overlay", "heatmap", "side by side", "contour"]

DISPLAYS: tuple[Display, ...] = ("overlay", "heatmap", "side by side", "contour")

BAR_HEIGHT = 256
"""Smallest height in pixels of a picture with a colour bar: below it the numbers fill the bar."""


@dataclass(frozen=True)
class Look:
    """How maps are shown; `limits` are the ends of a `fixed` scale in the unit of the maps."""

    display: Display = "overlay"
    colormap: Colormap = "inferno"
    scale: ScaleMode = "image"
    limits: tuple[float, float] | None = None
    opacity: float = 0.7
    bar: bool = False

    def limits_of(self, maps: Tensor) -> Tensor:
        """The values (B, 2) with the first and the last colour of maps (B, h, w).

        They are the median and the 99th percentile, so that the surer half of what is compared
        stays clear and a few extreme pixels do not darken the rest.
        """
        return scale_limits(maps, self.scale, low_percentile=50.0, fixed=self.limits)


def draw(
    maps: Tensor,
    values: Tensor,
    masks: Tensor,
    images: Tensor | None,
    look: Look,
    unit: str = "",
) -> Tensor:
    """Pictures of maps.

    Arguments:
        maps: Shape (B, h, w); they decide the limits of the colours.
        values: The same in the size of the picture, shape (B, H, W).
        masks: Outlined by the display `contour`, shape (B, H, W).
        images: RGB in [0, 1], shape (B, H, W, 3). Without them the heat is shown alone.
        look: How.
        unit: Of the maps, for the colour bar.

    Returns:
        RGB in [0, 1], shape (B, H', W', 3); larger than (H, W) only by what is put beside it, and
        by the whole factor that a colour bar on a small picture needs.
    """
    limits = look.limits_of(maps)
    heat = colorize(values, limits, look.colormap)
    picture = _body(heat, normalize(values, limits), masks, images, look)
    if not look.bar:
        return picture
    picture = _enlarge(picture, BAR_HEIGHT)
    return side_by_side(picture, color_bar(picture.shape[1], limits, look.colormap, unit))


def _body(
    heat: Tensor, strength: Tensor, masks: Tensor, images: Tensor | None, look: Look
) -> Tensor:
    if images is None or look.display == "heatmap":
        return contour(heat, masks) if look.display == "contour" else heat
    if look.display == "side by side":
        return side_by_side(images, heat)
    if look.display == "contour":
        return contour(images, masks)
    return overlay(images, heat, look.opacity, strength)


def _enlarge(pictures: Tensor, height: int) -> Tensor:
    factor = -(-height // pictures.shape[1])
    if factor == 1:
        return pictures
    large = functional.interpolate(
        pictures.movedim(-1, 1), scale_factor=float(factor), mode="nearest-exact"
    )
    return large.movedim(1, -1)
