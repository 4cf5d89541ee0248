"""A picture a signal: the images it suspects most and least, with its heat over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bayesdiff_core.render.pictures import Look, draw
from bayesdiff_core.render.text import BACKGROUND, FOREGROUND, draw_text
from bayesdiff_core.render.upsample import guided_upsample

from .runs import Image, Runs
from .truth import Verdict

__all__ = ["draw_sheet"]

COLUMNS = 8
SIDE = 256
"""Pixels of the longer side of an image on the sheet."""

LINE = 20
GAP = 6
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
    tiles = torch.cat([pictures, heated], 1).numpy()
    parts = [
        _band(f"{signal}: {name} suspect", signal, band, tiles[start : start + COLUMNS], truth)
        for name, band, start in zip(("most", "least"), shown, (0, COLUMNS), strict=True)
        if band
    ]
    sheet = np.concatenate(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    values_8bit = (sheet[..., ::-1].clip(0, 1) * 255).round().astype(np.uint8)
    cv2.imencode(".jpg", values_8bit, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tofile(path)


def _band(
    title: str,
    signal: str,
    images: Sequence[Image],
    tiles: np.ndarray,
    truth: dict[str, Verdict],
) -> np.ndarray:
    """A row of tiles (N, H, W, 3) under a title, each above its score."""
    _, height, width, _ = tiles.shape
    step = width + GAP
    sheet = np.empty((LINE + height + LINE, COLUMNS * step, 3), np.float32)
    sheet[:] = BACKGROUND
    draw_text(sheet, title, (4, 2), LINE - 4, FOREGROUND)
    for i, (image, tile) in enumerate(zip(images, tiles, strict=True)):
        sheet[LINE : LINE + height, i * step : i * step + width] = tile
        verdict = truth.get(image.file)
        color = MARK if verdict and verdict.malformed else FOREGROUND
        text = f"{image.signals[signal]['top10']:.3g}"
        draw_text(sheet, text, (i * step + 4, LINE + height + 2), LINE - 4, color)
    return sheet


def _resized(picture: Tensor) -> Tensor:
    """A picture (H, W, 3) with its longer side at SIDE pixels."""
    factor = SIDE / max(picture.shape[:2])
    size = [max(round(side * factor), 1) for side in picture.shape[:2]]
    mode = "nearest-exact" if factor > 1 else "area"
    return functional.interpolate(picture.movedim(-1, 0)[None], size, mode=mode)[0].movedim(0, -1)
