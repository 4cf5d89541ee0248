"""A folder of measured runs: images, maps, and one line of JSON per run with its scores.

A run is one line, written when everything else of it is there, so that a measurement that was cut
off goes on with the first run that is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bayesdiff_core.ranking import pool

from ..baselines import total_variation
from ..contact_sheet import write_picture
from ..experiment import replacing
from . import CheckpointError
from .host import Executor, Seen
from .workflow import Workflow

__all__ = ["BASELINES", "Image", "Runs", "check_prompts", "maps_of", "read_picture", "score"]

BASELINES = ("total variation", "brightness")
"""Scores of the picture alone, which cost nothing; every signal has to beat them."""

DESCRIPTION = (
    "sampler_name", "scheduler", "steps", "denoise", "cfg", "evaluations", "method",
    "extra_evaluations",
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    """One image: its file, the prompt and the place in the batch of its run, and its scores.

    `signals` holds for every signal and baseline the `mean` of its map, the mean of its highest
    tenth `top10`, and where it peaks, `peak` (x, y) as fractions of width and height.
    """

    file: str
    run: int
    place: int
    batch: int
    prompt: str
    signals: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Runs:
    """The runs of one workflow from one first seed, with these prompts in turn or its own."""

    folder: Path
    workflow: Workflow
    seed: int = 0
    prompts: tuple[str, ...] = ()

    def open(self) -> None:
        """Make the folder, or check that it holds runs of the same workflow.

        Raises:
            CheckpointError: It holds others.
        """
        setting = {
            "workflow": hashlib.sha256(
                json.dumps([self.workflow.nodes, self.workflow.sampler]).encode()
            ).hexdigest(),
            "prompts": list(self.prompts),
            "seed": self.seed,
        }
        for name in ("images", "maps"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        path = self.folder / "setting.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != setting:
            raise CheckpointError(
                f"{self.folder} holds runs of another workflow, seed or list of prompts. Choose "
                "another folder with --output, or delete this one."
            )
        _write(path, json.dumps(setting, indent=1))
        _write(self.folder / "workflow.json", json.dumps(self.workflow.nodes, indent=1))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was measured, one dictionary per run."""
        path = self.folder / "runs.jsonl"
        if not path.is_file():
            return []
        found = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break  # The line that was being written when the measurement was cut off.
        return found

    def images(self) -> list[Image]:
        return [
            Image(i["file"], line["run"], place, len(line["images"]), line["prompt"], i["signals"])
            for line in self.lines
            for place, i in enumerate(line["images"])
        ]

    def measure(self, executor: Executor, count: int, report: Callable[[str], None]) -> None:
        """Run the workflow until `count` runs are there."""
        lines = self.lines
        path = self.folder / "runs.jsonl"
        _write(path, "".join(json.dumps(line) + "\n" for line in lines))
        for run in range(len(lines), count):
            prompt = self.prompts[run % len(self.prompts)] if self.prompts else None
            try:
                seen = executor.run(self.workflow.of_run(self.seed + run, prompt))
                line = self._keep(run, seen, self.workflow.prompt if prompt is None else prompt)
            except CheckpointError as error:
                raise CheckpointError(f"Run {run + 1}, seed {self.seed + run}: {error}") from None
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            report(f"run {run + 1} of {count}: {len(seen.images)} images")

    def _keep(self, run: int, seen: Seen, prompt: str) -> dict[str, Any]:
        maps = maps_of(seen)
        scores = {name: score(values) for name, values in maps.items()}
        stored = {name: maps[name].clone() for name in maps if name not in BASELINES}
        save_file(stored, self.folder / "maps" / f"{run:04}.safetensors")
        images = []
        for place, picture in enumerate(seen.images):
            file = f"images/{run:04}-{place}.png"
            write_picture(self.folder / file, picture.numpy())
            signals = {name: rows[place] for name, rows in scores.items()}
            images.append({"file": file, "signals": signals})
        sampling = {name: getattr(seen.uncertainty.settings, name) for name in DESCRIPTION}
        seed = self.seed + run
        return {
            "run": run,
            "seed": seed,
            "prompt": prompt,
            "sampling": sampling,
            "images": images,
        }

    def picture(self, image: Image) -> Tensor:
        """The image (H, W, 3), RGB in [0, 1]."""
        return read_picture(self.folder / image.file)

    def maps(self, image: Image) -> dict[str, Tensor]:
        """The image's maps (h, w) by signal."""
        found = load_file(self.folder / "maps" / f"{image.run:04}.safetensors")
        return {name: values[image.place] for name, values in found.items()}


def maps_of(seen: Seen) -> dict[str, Tensor]:
    """Maps (B, h, w) of all signals, and those of the baselines in the size of the images.

    Raises:
        CheckpointError: They belong to a video, there is not one map an image, or the decoder
            overflowed.
    """
    uncertainty, images = seen.uncertainty, seen.images
    maps = {name: uncertainty.signal(name).map.float() for name in uncertainty.names}
    first = maps["artifact"]
    if first.ndim != 3:
        raise CheckpointError(
            "The workflow makes a video; this script measures images. Set its length to 1."
        )
    if len(first) != len(images):
        raise CheckpointError(
            f"There are {len(first)} uncertainty maps but {len(images)} decoded images; decode "
            "the sampler's latent as it is."
        )
    if not torch.isfinite(images).all():
        raise CheckpointError(
            "The decoded images hold values that are NaN or infinite: the VAE overflowed at half "
            "precision. Start ComfyUI with --fp32-vae (behind --), or load another VAE."
        )
    pictures = images.movedim(-1, 1)
    maps["total variation"] = total_variation(pictures)
    maps["brightness"] = pictures.mean(1)
    return maps


def score(maps: Tensor) -> list[dict[str, Any]]:
    """What is kept of each map (B, h, w): see `Image`.

    Raises:
        CheckpointError: The run diverged, so that the map is not finite.
    """
    try:
        pooled = {"mean": pool(maps, "mean"), "top10": pool(maps, "top10")}
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    height, width = maps.shape[-2:]
    peaks = maps.flatten(1).argmax(1).tolist()
    return [
        {
            "mean": pooled["mean"][i].item(),
            "top10": pooled["top10"][i].item(),
            "peak": [(peak % width + 0.5) / width, (peak // width + 0.5) / height],
        }
        for i, peak in enumerate(peaks)
    ]


def read_picture(path: Path) -> Tensor:
    """A picture (H, W, 3), RGB in [0, 1].

    Raises:
        CheckpointError: There is none.
    """
    data = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise CheckpointError(f"The image {path} is missing; delete the folder and run again.")
    return torch.from_numpy(picture[..., ::-1].astype(np.float32) / 255)


def _write(path: Path, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def check_prompts(lines: Sequence[str]) -> tuple[str, ...]:
    """The prompts of a list, one per line, without empty lines.

    Raises:
        CheckpointError: There is none.
    """
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise CheckpointError("The list of prompts is empty; write one prompt a line.")
    return prompts
