"""What is malformed: by people's marks, or by the oracle of a bundled model."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from demo.bundle import load_config

from ..oracle_truth import load_judge
from . import CheckpointError
from .runs import Image, Runs

__all__ = ["BUNDLED", "Box", "Verdict", "bundled_truth", "inside", "read_labels"]

BUNDLED = ("digits", "emoji", "letters")

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as fractions of the picture's width and height."""

CHUNK = 64


@dataclass(frozen=True)
class Verdict:
    """Whether an image is malformed and, where that is known, in which places."""

    malformed: bool
    boxes: tuple[Box, ...] = ()


def inside(point: Sequence[float], boxes: Sequence[Box]) -> bool:
    """Whether a point (x, y) lies in one of the boxes."""
    x, y = point
    return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes)


def read_labels(path: Path, images: Sequence[Image]) -> dict[str, Verdict]:
    """Marks by file, from a table with the columns image, malformed (0 or 1) and boxes.

    `boxes` may be missing or empty; a box is four fractions, several are parted by semicolons.
    Images that are not in the table have no verdict.

    Raises:
        CheckpointError: A column is missing, a value is none of those, or an image is unknown.
    """
    known = {image.file for image in images}
    found = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            place = f"{path}, line {number}"
            if "image" not in row or "malformed" not in row:
                raise CheckpointError(
                    f"{path} needs the columns image and malformed in its first line."
                )
            if row["image"] not in known:
                raise CheckpointError(f"{place}: '{row['image']}' is no image of this folder.")
            if row["malformed"] not in ("0", "1"):
                raise CheckpointError(f"{place}: malformed is 0 or 1, not '{row['malformed']}'.")
            boxes = _boxes(row.get("boxes") or "", place)
            found[row["image"]] = Verdict(row["malformed"] == "1", boxes)
    return found


def _boxes(text: str, place: str) -> tuple[Box, ...]:
    boxes: list[Box] = []
    for part in filter(None, text.split(";")):
        try:
            left, top, right, bottom = (float(value) for value in part.split())
        except ValueError:
            raise CheckpointError(
                f"{place}: '{part.strip()}' is no box; write its left, top, right and bottom as "
                "fractions of the picture, such as 0.1 0.2 0.4 0.5."
            ) from None
        boxes.append((left, top, right, bottom))
    return tuple(boxes)


def bundled_truth(model: str, runs: Runs, images: Sequence[Image]) -> dict[str, Verdict]:
    """Verdicts of a bundled model's oracle (`benchmarks.oracle_truth`), which knows the prompts.

    An image is malformed where one of its regions is, and these are its boxes.

    Raises:
        CheckpointError: A prompt is none of that model.
    """
    judge = replace(load_judge(model), decode=lambda pictures: pictures)
    found = {}
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        pictures = torch.stack([runs.picture(image).movedim(-1, 0) for image in chunk])
        labels = torch.tensor([labels_of(model, image) for image in chunk])
        malformed = judge.malformed(pictures * 2 - 1, labels)
        for image, bad in zip(chunk, malformed, strict=True):
            found[image.file] = Verdict(bool(bad.any()), _regions(bad))
    return found


def _regions(malformed: Tensor) -> tuple[Box, ...]:
    """Boxes of the malformed quadrants, row by row; of a picture judged whole there is none."""
    if len(malformed) == 1:
        return ()
    return tuple(
        (q % 2 / 2, q // 2 / 2, (q % 2 + 1) / 2, (q // 2 + 1) / 2)
        for q in malformed.nonzero().flatten().tolist()
    )


def labels_of(model: str, image: Image) -> list[int]:
    """The labels that an image's prompt asks for; several lines are one per image of the batch."""
    config = load_config(model)
    names = {name.casefold(): label for label, name in enumerate(config.class_names)}
    lines = [line.strip().casefold() for line in image.prompt.splitlines() if line.strip()]
    line = lines[image.place % len(lines)] if len(lines) in (1, image.batch) else ""
    words = [line] if config.n_labels == 1 else line.split()
    if len(words) != config.n_labels or not set(words) <= set(names):
        raise CheckpointError(
            f"'{image.prompt}' is no prompt of the bundled model '{model}', whose oracle was "
            "asked for; of a checkpoint of yours, judge by labels or clip."
        )
    return [names[word] for word in words]
