"""Outlines of masks, rows of pictures and a colour bar: what goes over and beside a heatmap."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ..map_checks import check_finite, check_images, check_shape, check_whole, displayable
from .heatmap import Colormap, colorize
from .text import (
    BACKGROUND,
    FOREGROUND,
    MINIMUM_TEXT,
    Color,
    Picture,
    draw_text,
    nice_ticks,
    text_width,
)

__all__ = ["color_bar", "contour", "side_by_side"]


GAP = 8
"""Pixels between two pictures side by side."""

OUTLINE: Color = (1.0, 1.0, 1.0)


def contour(images: Tensor, masks: Tensor) -> Tensor:
    """Images with the outline of the regions of masks, over a dark seam that shows on any ground.

    Arguments:
        images: RGB in [0, 1], shape (B, H, W, 3).
        masks: A region is where it is at least 0.5, shape (B, H, W).

    Returns:
        RGB in [0, 1], shape (B, H, W, 3), with a line of 1/200 of the shorter side, at least 1.5
        pixels; away from the line it is the images to the bit.

    Raises:
        ValueError: If the shapes do not fit.
    """
    result = displayable(images)
    check_shape(masks, "The mask", "B", "H", "W")
    if masks.shape != images.shape[:3]:
        raise ValueError(
            f"The mask has the shape {tuple(masks.shape)} but the images need "
            f"{tuple(images.shape[:3])}; resize the mask to the images first."
        )
    width = max(1.5, min(images.shape[1:3]) / 200)
    for image, mask in zip(result, masks, strict=True):
        distance = _distance_to_outline(mask)
        for half, paint in ((width, BACKGROUND), (width / 2, OUTLINE)):
            alpha = (half + 0.5 - distance).clamp(0.0, 1.0)[..., None]
            image.lerp_(torch.tensor(paint).expand_as(image), alpha)
    return result


def side_by_side(*pictures: Tensor) -> Tensor:
    """Pictures of equal height in a row.

    Arguments:
        pictures: Each (B, H, W_i, 3) or (1, H, W_i, 3), RGB in [0, 1].

    Returns:
        RGB in [0, 1], shape (B, H, sum of W_i and the gaps, 3).

    Raises:
        ValueError: If the heights or the batch sizes differ.
    """
    for picture in pictures:
        check_images(picture, "A picture to put in a row")
    heights = {picture.shape[1] for picture in pictures}
    batches = {picture.shape[0] for picture in pictures} - {1}
    if len(heights) != 1 or len(batches) > 1:
        raise ValueError(
            "Pictures in a row need the same height and the same batch size, but have the "
            f"shapes {[tuple(picture.shape) for picture in pictures]}; resize them first."
        )
    batch = max(picture.shape[0] for picture in pictures)
    space = torch.tensor(BACKGROUND).expand(batch, heights.pop(), GAP, 3)
    row: list[Tensor] = []
    for picture in pictures:
        row += [space, displayable(picture).expand(batch, -1, -1, -1)]
    return torch.cat(row[1:], dim=2)


def color_bar(
    height: int, limits: Tensor, colormap: Colormap = "inferno", unit: str = ""
) -> Tensor:
    """A scale to put beside a heatmap with `side_by_side`, low at the bottom, with numbers.

    The letters grow with the height, so that they can be read when a node shrinks the picture.

    Arguments:
        height: Of the picture, in pixels, at least 64.
        limits: From `scale_limits`, shape (B, 2).
        colormap: The one the heatmap has.
        unit: What the numbers are, written upwards along the bar; left out where the bar is too
            short for it.

    Returns:
        RGB in [0, 1], shape (B, height, W, 3), W following from the longest number.

    Raises:
        ValueError: If the height is too small for legible numbers, or the limits are no finite
            pairs.
    """
    check_shape(limits, "The limits", "B", 2)
    check_finite(limits, "The limits")
    check_whole(height, "The height of a colour bar")
    if height < 64:
        raise ValueError(
            f"A colour bar needs a height of 64 pixels for legible numbers, but has {height}; "
            "enlarge the image first, or switch the colour bar off."
        )
    size = max(MINIMUM_TEXT, round(height / 28))
    unit = unit if text_width(unit, size) <= height else ""
    pairs = [(low, high) for low, high in limits.tolist()]
    ticks = [nice_ticks(*pair, max(2, height // (5 * size))) for pair in pairs]
    widest = max(text_width(label, size) for marks in ticks for _, label in marks)
    width = size // 2 + size + size // 2 + widest + (size + size // 2 if unit else size // 4)
    blank = np.tile(np.array(BACKGROUND, dtype=np.float32), (height, width, 1))
    ramp = torch.linspace(1.0, 0.0, height - 2 * size)[None, :, None].expand(1, -1, size)
    colors = colorize(ramp, torch.tensor([[0.0, 1.0]]), colormap)[0]
    blank[size:-size, size // 2 : size // 2 + size] = colors.numpy()
    if unit:
        place = (width - size // 4, height / 2)
        draw_text(blank, unit, place, size, FOREGROUND, (1.0, 0.5), vertical=True)
    bars = [
        _with_ticks(blank, *pair, marks, size) for pair, marks in zip(pairs, ticks, strict=True)
    ]
    return torch.from_numpy(np.stack(bars))


def _with_ticks(
    blank: Picture, low: float, high: float, ticks: list[tuple[float, str]], size: int
) -> Picture:
    picture = blank.copy()
    length = picture.shape[0] - 2 * size - 1
    right = size // 2 + size
    for value, label in ticks:
        level = (value - low) / (high - low) if high > low else 0.0
        y = size + length * (1.0 - level) + 0.5
        thick = max(1, size // 12)
        row = min(int(y), size + length + 1 - thick)
        picture[row : row + thick, right : right + size // 3] = FOREGROUND
        draw_text(picture, label, (right + size // 2, y), size, FOREGROUND, (0.0, 0.5))
    return picture


def _distance_to_outline(mask: Tensor) -> Tensor:
    """Pixels to the nearest border of the region, which ends at the border of the picture."""
    inside = np.pad((mask >= 0.5).cpu().numpy().astype(np.uint8), 1)
    if not inside.any():
        return torch.full(mask.shape, float("inf"))
    out, in_ = (
        cv2.distanceTransform(region, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for region in (1 - inside, inside)
    )
    signed = np.where(inside > 0, 0.5 - in_, out - 0.5)
    # The outline follows the stairs of the pixels; a slight blur makes it a smooth curve.
    smooth = cv2.GaussianBlur(signed, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
    return torch.from_numpy(np.abs(smooth[1:-1, 1:-1]).astype(np.float32))
