"""Letters and numbers in pictures, drawn with nothing but OpenCV.

OpenCV 4 draws its vector fonts with hairlines that fade at node size, OpenCV 5 sets a real
typeface. Both look even when the text is set four times too large and averaged down, which is
what this module does; it is the only place that draws letters.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ..map_checks import check_number, check_whole

__all__ = [
    "BACKGROUND",
    "FOREGROUND",
    "MINIMUM_TEXT",
    "Color",
    "Picture",
    "draw_text",
    "nice_ticks",
    "text_width",
]

Picture = NDArray[np.float32]
Color = tuple[float, float, float]

MINIMUM_TEXT = 13
"""Smallest height of a line of text in pixels, descenders included, that stays legible."""

BACKGROUND: Color = (0.11, 0.11, 0.12)
"""Dark, as the canvas that the pictures are mostly looked at on."""

FOREGROUND: Color = (0.88, 0.88, 0.88)

_OVERSAMPLING = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# The vector font needs a stroke that grows with the letters; the typeface has its own weight.
_HAS_TYPEFACE = hasattr(cv2, "FontFace")


def text_width(text: str, size: int) -> int:
    """Width of a line of text.

    Arguments:
        text: One line.
        size: Height of the line in pixels, descenders included.

    Returns:
        Pixels.

    Raises:
        ValueError: If the size is no whole number from 1.
    """
    return int(_ink(text, size).shape[1])


def draw_text(
    picture: Picture,
    text: str,
    position: tuple[float, float],
    size: int,
    color: Color,
    anchor: tuple[float, float] = (0.0, 0.0),
    vertical: bool = False,
) -> None:
    """Draws one line of text into a picture, in place; what falls outside is cut off.

    Arguments:
        picture: RGB in [0, 1], shape (H, W, 3).
        text: One line.
        position: Where the anchor goes, (x, y) in pixels.
        size: Height of the line in pixels, descenders included.
        color: RGB in [0, 1].
        anchor: The point of the text put at `position`: (0, 0) its top left corner, (1, 1) its
            bottom right one, (0.5, 0.5) its middle.
        vertical: Whether the text reads upwards.

    Raises:
        ValueError: If the picture is none, or a number is not finite.
    """
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.float32:
        raise ValueError(
            f"Text is drawn into a float32 picture of shape (height, width, 3), not into "
            f"{picture.dtype} of {picture.shape}."
        )
    for number in (*position, *anchor):
        check_number(number, "The place of a text")
    ink = _ink(text, size)
    if vertical:
        ink = np.rot90(ink)
    height, width = ink.shape
    left = round(position[0] - anchor[0] * width)
    top = round(position[1] - anchor[1] * height)
    rows = slice(max(top, 0), min(top + height, picture.shape[0]))
    columns = slice(max(left, 0), min(left + width, picture.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = ink[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    target = picture[rows, columns]
    target += part[..., None] * (np.asarray(color, dtype=np.float32) - target)


def nice_ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """Round numbers between two limits with the text to print beside each.

    Arguments:
        low: Lower end of the axis.
        high: Upper end of the axis.
        count: About how many are wanted; there are at most one and a half times as many.

    Returns:
        Pairs of value and label, ascending, steps of 1, 2 or 5 times a power of ten. A range
        without extent has the one tick `low`.

    Raises:
        ValueError: If a limit is not finite.
    """
    for limit in (low, high):
        check_number(limit, "The end of an axis", -1e300, 1e300)
    if high - low < 1e-300 or not high - low > 1e-6 * max(abs(low), abs(high)):
        return [(low, f"{low:.3g}")]
    raw = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    # Each factor serves up to its geometric mean with the next.
    share = raw / magnitude
    step = magnitude * (1.0 if share < 2**0.5 else 2.0 if share < 10**0.5 else 5.0)
    step *= 2.0 if share >= 50**0.5 else 1.0
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    values = [index * step for index in range(first, last + 1)]
    return [(value, _label(value, step, max(abs(low), abs(high)))) for value in values]


def _label(value: float, step: float, largest: float) -> str:
    if value == 0.0:
        return "0"
    place = math.floor(math.log10(step) + 1e-6)
    if largest >= 1e5 or largest < 2e-3:
        digits = max(math.floor(math.log10(abs(value)) + 1e-6) - place, 0)
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{max(-place, 0)}f}"


def _ink(text: str, size: int) -> Picture:
    """How much of each pixel the letters cover, in [0, 1], shape (size, width)."""
    check_whole(size, "The height of a line of text", 1, 4096)
    large = size * _OVERSAMPLING
    scale = large / 31.0
    thickness = 1 if _HAS_TYPEFACE else max(1, round(large / 13))
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    width += 2 * _OVERSAMPLING
    canvas = np.zeros((large, width + -width % _OVERSAMPLING), dtype=np.uint8)
    baseline = (_OVERSAMPLING, round(large * 0.77))
    cv2.putText(canvas, text, baseline, _FONT, scale, (255,), thickness, cv2.LINE_AA)
    small = (canvas.shape[1] // _OVERSAMPLING, size)
    ink: Picture = cv2.resize(canvas, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    ink /= np.float32(255.0)
    return ink
