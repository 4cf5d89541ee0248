"""A batch of uncertainty maps as finished pictures, and the regions selected in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional

from ..map_checks import check_images, check_maps
from ..segments import Segment, Selection, corners, segments
from .heatmap import Colormap, ScaleMode, colorize, normalize, overlay, scale_limits
from .marks import color_bar, contour, side_by_side
from .upsample import guided_upsample, upsample

__all__ = ["DISPLAYS", "Display", "Look", "UncertaintyPicture", "draw", "draw_uncertainty"]

Display = Literal["overlay", "heatmap", "side by side", "contour"]

DISPLAYS: tuple[Display, ...] = ("overlay", "heatmap", "side by side", "contour")

BAR_HEIGHT = 256
"""Smallest height in pixels of a picture with a colour bar: below it the numbers fill the bar."""


@dataclass(frozen=True)
class Look:
    """How maps are shown.

    Attributes:
        display: `overlay` is heat over the image, `heatmap` heat alone, `side by side` both, and
            `contour` the image with the outline of the mask.
        colormap: One of `heatmap.COLORMAPS`.
        scale: Which maps decide the ends of the colours, see `heatmap.scale_limits`.
        limits: Low and high end of the scale `fixed`, in the unit of the maps.
        opacity: Of the strongest heat in an overlay, in [0, 1].
        bar: Whether a colour bar with numbers is put beside the picture.
    """

    display: Display = "overlay"
    colormap: Colormap = "inferno"
    scale: ScaleMode = "image"
    limits: tuple[float, float] | None = None
    opacity: float = 0.7
    bar: bool = False

    def limits_of(self, maps: Tensor) -> Tensor:
        """The values with the first and the last colour.

        Unless the scale is fixed, they are the median and the 99th percentile, so that the surer
        half of what is compared stays clear and a few extreme pixels do not darken the rest.

        Arguments:
            maps: Shape (B, h, w).

        Returns:
            In the unit of the maps, shape (B, 2).

        Raises:
            ValueError: If the maps are not finite, or the limits of a fixed scale are missing.
        """
        return scale_limits(maps, self.scale, low_percentile=50.0, fixed=self.limits)


class UncertaintyPicture(NamedTuple):
    """Maps drawn as pictures, with the regions that were selected in them.

    Attributes:
        picture: RGB in [0, 1], shape (B, H', W', 3), see `draw`.
        mask: In [0, 1], feathered, shape (B, H, W).
        boxes: For each map [left, top, right, bottom] of its regions, the largest first.
        segments: For each map its (height, width) and the same regions for detailer nodes.
    """

    picture: Tensor
    mask: Tensor
    boxes: list[list[list[int]]]
    segments: list[tuple[tuple[int, int], list[Segment]]]


def draw_uncertainty(
    maps: Tensor,
    images: Tensor | None = None,
    *,
    unit: str = "",
    look: Look = Look(),
    selection: Selection = Selection(),  # noqa: B008
) -> UncertaintyPicture:
    """Draws maps over their images and selects what exceeds the threshold.

    The mask and the confidence of a segment are read off the interpolated map; the heat follows
    the edges of the image.

    Arguments:
        maps: Shape (B, h, w), in `unit`.
        images: RGB in [0, 1], shape (B, H, W, 3). Without them the size is that of the maps.
        unit: Of the maps, for the colour bar.
        look: How to draw.
        selection: What the mask holds; its distances are in pixels of the image.

    Raises:
        ValueError: If the maps are not finite, the images do not fit, or the selection does not
            have exactly one threshold.
    """
    check_maps(maps)
    if images is not None:
        check_images(images)
    height, width = maps.shape[-2:] if images is None else images.shape[1:3]
    values = upsample(maps, (height, width))
    masks = selection.regions(values, selection.thresholds(maps))
    soft = selection.soften(masks)
    smooth = values if images is None else guided_upsample(maps, images)
    strength = normalize(values, look.limits_of(maps))
    return UncertaintyPicture(
        picture=draw(maps, smooth, masks, images, look, unit),
        mask=soft,
        boxes=corners(masks),
        segments=segments(masks, soft, strength),
    )


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

    Raises:
        ValueError: If the maps are not finite, the shapes do not fit, or there is no such display.
    """
    if look.display not in DISPLAYS:
        raise ValueError(f"No display {look.display!r}; choose one of {', '.join(DISPLAYS)}.")
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
