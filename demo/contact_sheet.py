"""Samples as pictures, contact sheets of them, and PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
from torch import Tensor
from torch.nn.functional import interpolate, pad

from bayesdiff_core.render.text import draw_text

__all__ = ["contact_sheet", "enlarge", "write_picture"]

INK = (0.93, 0.93, 0.93)
GROUND = 0.09
GAP = 12
CAPTION = 26
"""Pixels between captioned pictures, and height of the strip under each."""


def enlarge(samples: Tensor, scale: int = 1) -> Tensor:
    """Pictures (B, scale H, scale W, 3), RGB in [0, 1], of samples (B, 1 or 3, H, W) in [-1, 1].

    Every pixel becomes a square; values outside [-1, 1] are clamped.
    """
    large = interpolate(samples.clamp(-1, 1) / 2 + 0.5, scale_factor=scale, mode="nearest")
    return large.movedim(1, -1).expand(-1, -1, -1, 3).contiguous()


def contact_sheet(pictures: Tensor, columns: int, captions: Sequence[str] = ()) -> Tensor:
    """Pictures in a grid, row by row.

    Arguments:
        pictures: RGB in [0, 1], shape (N, H, W, 3). Those beyond the last full row are left out.
        columns: Pictures in a row.
        captions: A line under each picture; without them the pictures touch each other.

    Returns:
        RGB in [0, 1], shape (H', W', 3).
    """
    gap, strip = (GAP, CAPTION) if captions else (0, 0)
    height, width = pictures.shape[1:3]
    cells = pad(pictures, (0, 0, 0, gap, 0, strip + gap), value=GROUND)
    rows = len(cells) // columns
    grid = cells[: rows * columns].unflatten(0, (rows, columns)).transpose(1, 2)
    sheet = pad(grid.flatten(2, 3).flatten(0, 1), (0, 0, gap, 0, gap, 0), value=GROUND)
    for i, text in enumerate(captions):
        top = gap + i // columns * (height + strip + gap)
        left = gap + i % columns * (width + gap)
        centre = (left + width / 2, top + height + strip / 2)
        draw_text(sheet.numpy(), text, centre, 15, INK, (0.5, 0.5))
    return sheet


def write_picture(path: Path, picture: Tensor) -> None:
    """Write a picture (H, W, 3), RGB in [0, 1], as PNG; makes the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (picture.clamp(0, 1) * 255).round().byte().numpy()
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
