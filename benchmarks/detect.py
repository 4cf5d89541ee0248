"""Which signal finds what is malformed.

    python -m benchmarks.detect [--quick] [--scenes 1024] [--scale 1.0 1.5]

Scenes of the digits model have four places that can go wrong; the oracle, which saw real digits
only, says which did. A signal's score of a quadrant is the mean of its map there, or the mean of
the highest tenth. AUROC: the probability that a malformed quadrant scores above a good one. top-1:
how often the only malformed quadrant of a scene has the highest score of the four (chance 0.25).
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bayesdiff_core.methods import PRESETS
from bayesdiff_core.signals import CONTRAST_LEVELS, TrajectoryVariance, contrast
from demo.oracle import accepted_quadrants, load_oracle, quadrants

from .baselines import total_variation
from .metrics import Interval, auroc
from .setting import Setting

__all__ = ["Scenes", "figures", "sample_scenes"]

CHUNK = 32
STEPS = 30


class Scenes:
    """Scores (N, 4) of every quadrant by signal and pooling, and which are bad (N, 4)."""

    def __init__(self) -> None:
        self.bad: list[Tensor] = []
        self.scores: dict[tuple[str, str], list[Tensor]] = {}

    def add(self, maps: dict[str, Tensor], bad: Tensor) -> None:
        self.bad.append(bad)
        for name, values in maps.items():
            parts = quadrants(values[:, None]).flatten(2)
            count = round(parts.shape[-1] / 10)
            self.scores.setdefault((name, "mean"), []).append(parts.mean(-1))
            top = parts.topk(count, -1).values.mean(-1)
            self.scores.setdefault((name, "top10"), []).append(top)


def sample_scenes(count: int, guidance_scale: float, first_seed: int = 100) -> Scenes:
    """Sample `count` scenes and judge them, a chunk at a time."""
    oracle, scenes = load_oracle("digits"), Scenes()
    for chunk in range(-(-count // CHUNK)):
        size = min(CHUNK, count - chunk * CHUNK)
        setting = Setting("digits", "ddim", STEPS, guidance_scale, size, first_seed + chunk)
        trajectory = TrajectoryVariance(STEPS)
        process = setting.process((trajectory,))
        result = PRESETS["balanced"].sample(process, setting.posterior)
        denoiser, latent = process.denoiser, result.latent
        grey = latent.mean(1)
        maps = {
            "posterior": result.variance.mean(1).sqrt(),
            "trajectory": trajectory.map(),
            "contrast": contrast(
                denoiser.conditional,
                denoiser.unconditional,
                latent,
                lambda sigma, noise, clean: (1 - sigma) * clean + sigma * noise,
                [torch.tensor(t) for t in CONTRAST_LEVELS],
                torch.Generator().manual_seed(setting.seed),
            ),
            "total variation": total_variation(latent),
            "intensity": grey,
            "mid-grey": 1 - grey.square(),
        }
        scenes.add(maps, ~accepted_quadrants(oracle, latent, denoiser.labels))
    return scenes


def figures(scenes: Scenes) -> dict[str, dict[str, Interval]]:
    """AUROC by both poolings and top-1 of every signal, with intervals over scenes."""
    bad = torch.cat(scenes.bad)
    names = dict.fromkeys(name for name, _ in scenes.scores)
    result = {}
    for name in names:
        mean, top = (torch.cat(scenes.scores[name, pooling]) for pooling in ("mean", "top10"))
        result[name] = {
            "auroc": over_scenes(auroc, mean, bad),
            "auroc_top10": over_scenes(auroc, top, bad),
            "top1": over_scenes(top1, top, bad),
        }
    return result


def top1(scores: Tensor, bad: Tensor) -> float:
    """Share of the scenes with one malformed quadrant whose highest score is that quadrant's."""
    single = bad.sum(1) == 1
    hit = scores[single].argmax(1) == bad[single].int().argmax(1)
    return hit.float().mean().item()


def over_scenes(figure, scores: Tensor, bad: Tensor, repetitions: int = 200) -> Interval:  # type: ignore[no-untyped-def]
    """A figure with its 95% interval from resampled scenes."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(repetitions):
        index = torch.randint(len(bad), (len(bad),), generator=generator)
        values.append(figure(scores[index], bad[index]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(figure(scores, bad), float(low), float(high))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="128 scenes at cfg 1")
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--scale", type=float, nargs="+")
    parser.add_argument("--output", type=Path, help="also write every figure to this JSON file")
    arguments = parser.parse_args()
    count = arguments.scenes or (128 if arguments.quick else 1024)
    scales = arguments.scale or ([1.0] if arguments.quick else [1.0, 1.5])
    models, details = {}, {}
    for scale in scales:
        scenes = sample_scenes(count, scale)
        bad = torch.cat(scenes.bad)
        found = figures(scenes)
        single = int((bad.sum(1) == 1).sum())
        print(
            f"\ndigits, ddim {STEPS}, cfg {scale:g}: {count} scenes, {int(bad.sum())} of "
            f"{bad.numel()} quadrants malformed, {single} scenes with exactly one"
        )
        print(f"{'signal':<16} {'AUROC, mean':>22} {'AUROC, top 10%':>22} {'top-1':>22}")
        for name, row in found.items():
            print(f"{name:<16} " + " ".join(f"{value!s:>22}" for value in row.values()))
        label = f"digits cfg {scale:g}"
        models[label] = {
            name: {key: round(value.mean, 4) for key, value in row.items()}
            for name, row in found.items()
        }
        details[label] = {"malformed": int(bad.sum()), "quadrants": bad.numel(), **models[label]}
        if arguments.output:
            arguments.output.write_text(json.dumps(details, indent=1))
    print(json.dumps({"benchmark": "detect", "models": models}))


if __name__ == "__main__":
    main()
