"""Contact sheets of a signal: the images that it suspects most and least, under its heat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bayesdiff_core.render.pictures import Look, draw
from bayesdiff_core.render.upsample import guided_upsample

from ..contact_sheet import INK, Tile, contact_sheet, write_picture
from .runs import Image, Runs
from .truth import Verdict

__all__ = ["draw_sheet"]

COLUMNS = 8
SIDE = 256
"""Pixels of the longer side of an image on the sheet."""

MARK = (0.95, 0.45, 0.35)


def draw_sheet(
    path: Path, signal: str, runs: Runs, images: Sequence[Image], truth: dict[str, Verdict]
) -> None:
    """Write two bands, the highest scores (top 10%) and the lowest, from the highest down.

    Under each image stands its score, in red where it is malformed. All share one scale of heat.
    """
    order = sorted(images, key=lambda image: -image.signals[signal]["top10"])
    shown = order[:COLUMNS], order[max(len(order) - COLUMNS, COLUMNS) :]
    pictures = torch.stack([_resized(runs.picture(image)) for band in shown for image in band])
    maps = torch.stack([runs.maps(image)[signal] for band in shown for image in band])
    values = guided_upsample(maps, pictures)
    look = Look("overlay", scale="batch")
    heated = draw(maps, values, torch.zeros_like(values), pictures, look)
    drawn = iter(torch.cat([pictures, heated], 1).numpy())

    def tile(image: Image) -> Tile:
        verdict = truth.get(image.file)
        color = MARK if verdict and verdict.malformed else INK
        return Tile(next(drawn), f"{image.signals[signal]['top10']:.3g}", color)

    bands = [
        contact_sheet([[*map(tile, band)]], COLUMNS, f"{signal}: {name} suspect", text=16)
        for name, band in zip(("most", "least"), shown, strict=True)
        if band
    ]
    write_picture(path, np.concatenate(bands))


def _resized(picture: Tensor) -> Tensor:
    """A picture (H, W, 3) with its longer side at SIDE pixels."""
    factor = SIDE / max(picture.shape[:2])
    size = [max(round(side * factor), 1) for side in picture.shape[:2]]
    mode = "nearest-exact" if factor > 1 else "area"
    return functional.interpolate(picture.movedim(-1, 0)[None], size, mode=mode)[0].movedim(0, -1)
