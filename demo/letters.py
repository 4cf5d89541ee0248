"""Scenes of 2x2 capital letters, drawn from fonts that are fetched by name from npm.

Images are float32 in [-1, 1], three channels. Every quadrant has a font, an ink, a ground, a size
and a place of its own. No network trains on the held-out fonts.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Face:
    """One font at the size that gives capitals the height `cap_height`, in pixels."""

    name: str
    cap_height: int

    def coverage(self, letter: str, move: tuple[int, int]) -> Tensor:
        """Ink of a letter (TILE, TILE), 0 to 1, centred and then moved right and down."""
        font = _font(self.name, self.cap_height)
        left, top, right, bottom = font.getbbox(letter)
        x = round((TILE - left - right) / 2) + move[0]
        y = round((TILE - top - bottom) / 2) + move[1]
        tile = Image.new("L", (TILE, TILE))
        ImageDraw.Draw(tile).text((x, y), letter, 255, font)
        return torch.from_numpy(np.asarray(tile, dtype=np.float32) / 255)


def letter_batches(fonts: tuple[str, ...] = FONTS) -> Batches:
    """Scenes (B, 3, 128, 128) with their four labels (B, 4), row by row; labels index LETTERS."""

    def draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        def integers(low: int, high: int) -> list[int]:
            return torch.randint(low, high, (size * 4,), generator=generator).tolist()

        labels, face, height = (
            integers(0, len(LETTERS)),
            integers(0, len(fonts)),
            integers(CAP_HEIGHT[0], CAP_HEIGHT[1] + 1),
        )
        right, down = integers(-OFFSET, OFFSET + 1), integers(-OFFSET, OFFSET + 1)
        ink = _colours(INKS)[integers(0, len(INKS))]
        ground = _colours(GROUNDS)[integers(0, len(GROUNDS))]
        coverage = torch.stack(
            [
                Face(fonts[face[i]], height[i]).coverage(LETTERS[labels[i]], (right[i], down[i]))
                for i in range(size * 4)
            ]
        )[:, None]
        tiles = (ground + coverage * (ink - ground)).unflatten(0, (size, 4))
        return joined(tiles), torch.tensor(labels).reshape(size, 4)

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
