"""Scenes of 2x2 capital letters, drawn from fonts that are fetched by name from npm.

Images are float32 in [-1, 1], three channels. Every quadrant has a font, an ink, a ground, a size
and a place of its own. No network trains on the held-out fonts.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .data import Batches, Images, fetch_package
from .scene import joined, quadrants

__all__ = [
    "FONTS",
    "GROUNDS",
    "HELD_OUT_FONTS",
    "INKS",
    "LETTERS",
    "TILE",
    "letter_batches",
    "letter_tiles",
]

LETTERS = tuple("ABCDEFGHKMNPRSTX")

VERSION = "5.3.0"
FONTS = (
    "arvo",
    "bitter",
    "comic-neue",
    "courier-prime",
    "josefin-sans",
    "merriweather",
    "montserrat",
    "nunito",
    "open-sans",
    "oswald",
    "playfair-display",
    "rubik",
)
HELD_OUT_FONTS = ("cabin", "crimson-text", "work-sans", "zilla-slab")
"""Of the scope @fontsource, all in weight 700 under the SIL Open Font License 1.1."""

GROUNDS = ((250, 248, 240), (205, 226, 246), (250, 228, 170), (214, 236, 208))
INKS = ((24, 28, 36), (22, 60, 140), (170, 30, 40), (20, 110, 70), (110, 40, 130), (150, 80, 20))
"""Colours in sRGB, 0 to 255: light ground, dark ink."""

TILE = 64
CAP_HEIGHT = (34, 42)
OFFSET = 3
"""Pixels: side of a quadrant, heights of a capital, largest step away from the centre."""


def letter_ink(letter: str, font: ImageFont.FreeTypeFont, right: int, down: int) -> Tensor:
    """Ink of a letter (TILE, TILE), 0 to 1, centred and then moved right and down."""
    box = font.getbbox(letter)
    x = round((TILE - box[0] - box[2]) / 2) + right
    y = round((TILE - box[1] - box[3]) / 2) + down
    tile = Image.new("L", (TILE, TILE))
    ImageDraw.Draw(tile).text((x, y), letter, 255, font)
    return torch.from_numpy(np.asarray(tile, dtype=np.float32) / 255)


def letter_batches(fonts: tuple[str, ...] = FONTS) -> Batches:
    """Scenes (B, 3, 128, 128) with their four labels (B, 4), row by row; labels index LETTERS."""

    def draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        def integers(low: int, high: int) -> list[int]:
            return torch.randint(low, high, (size * 4,), generator=generator).tolist()

        labels, names = integers(0, len(LETTERS)), integers(0, len(fonts))
        heights = integers(CAP_HEIGHT[0], CAP_HEIGHT[1] + 1)
        right, down = integers(-OFFSET, OFFSET + 1), integers(-OFFSET, OFFSET + 1)
        ink = _colours(INKS)[integers(0, len(INKS))]
        ground = _colours(GROUNDS)[integers(0, len(GROUNDS))]
        drawn = zip(labels, names, heights, right, down, strict=True)
        coverage = torch.stack(
            [letter_ink(LETTERS[k], _font(fonts[f], h), x, y) for k, f, h, x, y in drawn]
        )
        tiles = ground + coverage[:, None] * (ink - ground)
        return joined(tiles.unflatten(0, (size, 4))), torch.tensor(labels).reshape(size, 4)

    return draw


def letter_tiles(fonts: tuple[str, ...], scenes: int, seed: int) -> Images:
    """The quadrants (4 * scenes, 3, TILE, TILE) of scenes, with their labels."""
    images, labels = letter_batches(fonts)(scenes, torch.Generator().manual_seed(seed))
    tiles = quadrants(images).flatten(0, 1)
    return Images(tiles, labels.flatten(), torch.zeros(len(tiles), dtype=torch.bool))


@cache
def _colours(values: tuple[tuple[int, int, int], ...]) -> Tensor:
    """Colours (N, 3, 1, 1) in [-1, 1]."""
    return torch.tensor(values, dtype=torch.float32)[..., None, None] / 127.5 - 1


@cache
def _font(name: str, cap_height: int) -> ImageFont.FreeTypeFont:
    """The font at the largest size whose H is no taller than `cap_height` pixels."""
    path = (
        fetch_package(f"@fontsource/{name}", VERSION) / "files" / f"{name}-latin-700-normal.woff"
    )
    # FreeType reads WOFF as it is; 100 pixels give the ratio of the H to the size asked for.
    _, top, _, bottom = ImageFont.truetype(str(path), 100).getbbox("H")
    return ImageFont.truetype(str(path), 100 * cap_height / (bottom - top))
