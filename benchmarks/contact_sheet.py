"""Contact sheets: images of one size in rows, with a caption under each, and files of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bayesdiff_core.render.text import Color, Picture, draw_text

__all__ = ["INK", "Tile", "contact_sheet", "write_picture"]

INK: Color = (0.93, 0.93, 0.93)
GROUND = 0.09
GAP = 10


@dataclass(frozen=True)
class Tile:
    """An image (H, W, 3), RGB in [0, 1], and its caption."""

    image: Picture
    caption: str
    color: Color = INK


def contact_sheet(
    rows: Sequence[Sequence[Tile]], columns: int, title: str = "", text: int = 12
) -> Picture:
    """A sheet (H, W, 3) of tiles that all have one size.

    Arguments:
        rows: Tiles from left to right, at most `columns` in a row.
        columns: How many the sheet is wide.
        title: A line above the tiles.
        text: Height of letters in pixels; their strip is twice as high.
    """
    height, width = rows[0][0].image.shape[:2]
    line = 2 * text
    above = GAP + (line if title else 0)
    down, across = height + line + GAP, width + GAP
    size = (above + len(rows) * down, GAP + columns * across, 3)
    sheet = np.full(size, GROUND, np.float32)
    draw_text(sheet, title, (GAP, GAP), text, INK)
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = above + r * down, GAP + c * across
            sheet[top : top + height, left : left + width] = tile.image
            centre = (left + width / 2, top + height + line / 2)
            draw_text(sheet, tile.caption, centre, text, tile.color, (0.5, 0.5))
    return sheet


def write_picture(path: Path, picture: NDArray[np.float32]) -> None:
    """Write a picture (H, W, 3), RGB in [0, 1], in the format that its name ends in."""
    values = (picture[..., ::-1].clip(0, 1) * 255).round().astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else []
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV's own writer fails on names that are not ASCII on some systems.
    cv2.imencode(path.suffix, np.ascontiguousarray(values), options)[1].tofile(path)
