"""Does sampling a malformed region again repair it, and does it break good ones?

    python -m benchmarks.repair [--quick] [--scenes 256] [--denoise 0.7] [--candidates 4]

Scenes of the digits model at cfg 1. Every quadrant that the oracle finds malformed, and as many
good ones, are sampled again: fresh noise around the recorded prediction inside, the recorded run
outside. The oracle judges the outcome of each rule of choice; it takes no part in choosing but
in the row that shows what a perfect choice would give. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdiff_core.flow import FlowDenoiser
from bayesdiff_core.process import SolverProcess, tile
from bayesdiff_core.ranking import pool
from bayesdiff_core.recording import Recorder, Recording
from bayesdiff_core.resample import MaskedRun, choose
from bayesdiff_core.samplers import ddim
from bayesdiff_core.signals import CONTRAST_LEVELS, contrast, trajectory_variance
from demo.oracle import accepted_quadrants, load_oracle

from .metrics import bootstrap
from .setting import Setting, load_benchmark_model

__all__ = ["Case", "main", "repair", "sample_cases"]

STEPS = 30
CHUNK = 32


@dataclass(frozen=True)
class Case:
    """Quadrants to sample again: the recording, labels and quadrant of each, and their masks."""

    recording: Recording
    labels: Tensor
    quadrant: Tensor

    @property
    def masks(self) -> Tensor:
        """(B, 1, 32, 32), 1 in the quadrant."""
        masks = torch.zeros(len(self.quadrant), 1, 32, 32)
        for i, q in enumerate(self.quadrant.tolist()):
            top, left = 16 * (q // 2), 16 * (q % 2)
            masks[i, :, top : top + 16, left : left + 16] = 1
        return masks


def sample_cases(chunk: int, size: int) -> tuple[Case | None, Case | None]:
    """Malformed quadrants of a chunk of scenes, and as many good ones, drawn at random."""
    setting = Setting("digits", "ddim", STEPS, 1.0, size, 500 + chunk)
    recorder = Recorder(STEPS)
    process = setting.process((recorder,))
    recording = recorder.finish(process.sample(), process.sigmas)
    labels = process.denoiser.labels
    good = accepted_quadrants(load_oracle("digits"), recording.final, labels)
    bad_index, good_index = (~good).nonzero(), good.nonzero()
    generator = torch.Generator().manual_seed(chunk)
    drawn = torch.randperm(len(good_index), generator=generator)[: len(bad_index)]

    def case(index: Tensor) -> Case | None:
        if not len(index):
            return None
        scene, quadrant = index.unbind(1)
        return Case(recording.select(scene), labels[scene], quadrant)

    return case(bad_index), case(good_index[drawn])


def renoise(sigma: Tensor, noise: Tensor, clean: Tensor) -> Tensor:
    return (1 - sigma) * clean + sigma * noise


def repair(case: Case, denoise: float, candidates: int, seed: int) -> dict[str, Tensor]:
    """Which quadrants (B,) are right afterwards, by rule of choice, and the change outside."""
    model = load_benchmark_model("digits")
    run = MaskedRun(case.recording, case.masks, denoise, candidates)
    denoiser = model.denoiser(case.labels, 1.0)
    shape = tile(case.recording.final, candidates).shape
    generator = torch.Generator().manual_seed(seed)
    recorder = Recorder(STEPS)
    start = run.start(renoise, torch.randn(shape, generator=generator))
    process = SolverProcess(ddim, denoiser, start, run.sigmas, observers=[recorder])
    final = run.finish(process.sample(run.evaluate(process.denoise)))
    results = [*final.unflatten(0, (candidates, -1)), case.recording.final]
    right = torch.stack([judged(latent, case) for latent in results])

    masks = case.masks[:, 0]
    seen = recorder.finish(final, run.sigmas).denoised.unflatten(1, (candidates, -1))
    wandering = [
        *(trajectory_variance(seen[:, c]) for c in range(candidates)),
        trajectory_variance(run.original_predictions()),
    ]
    trajectory = torch.stack([pool(m, "mean", masks) for m in wandering])
    suspicion = torch.stack([contrast_inside(denoiser, latent, masks) for latent in results])

    rows = torch.arange(len(case.quadrant))
    by_contrast, better = choose(suspicion[:-1], suspicion[-1])
    kept = torch.where(better, right[by_contrast, rows], right[-1])
    outside = [(latent - results[-1]).abs() * (1 - case.masks) for latent in results[:-1]]
    return {
        "before": right[-1],
        "one candidate": right[0],
        "lowest trajectory": right[choose(trajectory[:-1])[0], rows],
        "lowest contrast": right[by_contrast, rows],
        "lowest contrast, original kept where better": kept,
        "oracle's choice": right[:-1].any(0),
        "outside": torch.stack(outside).amax((0, 2, 3, 4)),
    }


def judged(latent: Tensor, case: Case) -> Tensor:
    accepted = accepted_quadrants(load_oracle("digits"), latent, case.labels)
    return accepted.gather(1, case.quadrant[:, None])[:, 0]


def contrast_inside(denoiser: FlowDenoiser, latent: Tensor, masks: Tensor) -> Tensor:
    levels = [torch.tensor(t) for t in CONTRAST_LEVELS]
    maps = contrast(
        denoiser.conditional, denoiser.unconditional, latent, renoise, levels,
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    return pool(maps, "mean", masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="64 scenes")
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--denoise", type=float, default=0.7)
    parser.add_argument("--candidates", type=int, default=4)
    arguments = parser.parse_args()
    count = arguments.scenes or (64 if arguments.quick else 256)
    outcomes: dict[str, dict[str, list[Tensor]]] = {"bad": {}, "good": {}}
    for chunk in range(-(-count // CHUNK)):
        cases = sample_cases(chunk, min(CHUNK, count - chunk * CHUNK))
        for kind, case in zip(("bad", "good"), cases, strict=True):
            if case is None:
                continue
            found = repair(case, arguments.denoise, arguments.candidates, seed=chunk)
            for name, value in found.items():
                outcomes[kind].setdefault(name, []).append(value)
    joined = {
        kind: {name: torch.cat(parts).float() for name, parts in rows.items()}
        for kind, rows in outcomes.items()
    }
    outside = max(rows.pop("outside").max().item() for rows in joined.values())
    bad, good = joined["bad"], joined["good"]
    print(
        f"digits, ddim {STEPS}, cfg 1, denoise {arguments.denoise:g}, {arguments.candidates} "
        f"candidates: {len(bad['before'])} malformed and {len(good['before'])} good quadrants"
    )
    print(f"{'rule':<46} {'malformed made right':>24} {'good broken':>24}")
    for name in bad:
        broken = bootstrap(1 - good[name])
        print(f"{name:<46} {bootstrap(bad[name])!s:>24} {broken!s:>24}")
    print(f"largest change outside the mask: {outside:g}")
    rule = "lowest contrast, original kept where better"
    print(
        json.dumps(
            {
                "benchmark": "repair",
                "bad_fixed": round(bad[rule].mean().item(), 4),
                "good_broken": round(1 - good[rule].mean().item(), 4),
                "outside_max_abs": outside,
            }
        )
    )


if __name__ == "__main__":
    main()
