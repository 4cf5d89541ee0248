"""The main job without a host: ``python -m demo.run``.

Fits a posterior, samples 16 scenes of handwritten digits, draws where each is unsure of itself,
ranks them, and samples the most suspicious region again. Pictures go to ``output/demo``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from bayesdiff_core.flow_matching import FlowDenoiser, FlowModel
from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.mask import grow, threshold_mask
from bayesdiff_core.methods import PRESETS
from bayesdiff_core.ranking import pool, rank
from bayesdiff_core.recording import Recorder
from bayesdiff_core.render.heatmap import colorize, normalize, overlay, scale_limits
from bayesdiff_core.render.marks import contour
from bayesdiff_core.render.text import draw_text
from bayesdiff_core.render.upsample import upsample
from bayesdiff_core.resample.masked_run import MaskedRun, choose
from bayesdiff_core.signals import (
    CONTRAST_LEVELS,
    Contrast,
    TrajectoryVariance,
    artifact,
    contrast,
    late_evaluations,
    trajectory_variance,
)
from bayesdiff_core.solver_run import SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas
from bayesdiff_core.uncertainty import Signal, Uncertainty, posterior_signal

from .bundle import load_model

OUTPUT = Path("output/demo")
STEPS = 30
SIZE = 192
GAP = 12
INK = (0.93, 0.93, 0.93)
GROUND = 0.09


@dataclass(frozen=True)
class Demo:
    """The digits model, its labels and a progress bar's worth of settings."""

    flow: FlowModel
    labels: Tensor
    null_label: int
    seed: int

    def denoiser(self, labels: Tensor | None = None) -> FlowDenoiser:
        labels = self.labels if labels is None else labels
        return FlowDenoiser(self.flow, labels, torch.full_like(labels, self.null_label))

    def noise(self, count: int, offset: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + offset)
        return torch.randn(count, 1, 32, 32, generator=generator)


def renoise(sigma: Tensor, noise: Tensor, clean: Tensor) -> Tensor:
    """The flow-matching state at noise level ``sigma``."""
    return (1 - sigma) * clean + sigma * noise


def bar(total: int, text: str) -> tqdm:
    return tqdm(total=total, desc=f"{text:<22}", unit="step", ncols=78, leave=True)


def fit(demo: Demo) -> LaplacePosterior:
    """A posterior on samples of the model's own, so that no data set is needed."""
    generator = torch.Generator().manual_seed(demo.seed)
    labels = torch.randint(10, (64, 4), generator=generator)
    with bar(STEPS + 1, "fit: sample, then sum") as progress:
        process = SolverRun(
            ddim, demo.denoiser(labels), demo.noise(64, 1), flow_sigmas(STEPS),
            callback=lambda _: progress.update(),
        )  # fmt: skip
        images = process.sample()
        sums = demo.flow.fit(iter([(images, labels)]), generator, draws=8)
        progress.update()
    return demo.flow.posterior(sums)


def sample(demo: Demo, posterior: LaplacePosterior) -> tuple[Tensor, Uncertainty]:
    """Scenes (B, 1, 32, 32) with all their signals."""
    count = len(demo.labels)
    trajectory, recorder = TrajectoryVariance(STEPS), Recorder(STEPS)
    denoiser = demo.denoiser()
    with bar(STEPS, f"sample {count} scenes") as progress:
        process = SolverRun(
            ddim, denoiser, demo.noise(count, 2), flow_sigmas(STEPS),
            callback=lambda _: progress.update(), observers=[trajectory, recorder],
        )  # fmt: skip
        result = PRESETS["balanced"].sample(process, posterior)
    found = contrast_of(demo, denoiser, result.latent)
    signals = {
        "trajectory": Signal(trajectory.map(), "latent variance"),
        "contrast": Signal(found.map, "latent error"),
        "artifact": Signal(artifact(found, trajectory.map()), "latent error"),
        "posterior": posterior_signal(result.variance.sqrt()),
    }
    recording = recorder.finish(result.latent, process.sigmas)
    return result.latent, Uncertainty(signals, recording)


def contrast_of(demo: Demo, denoiser: FlowDenoiser, latent: Tensor) -> Contrast:
    levels = {t: torch.tensor(t) for t in CONTRAST_LEVELS}
    generator = torch.Generator().manual_seed(demo.seed)
    return contrast(
        denoiser.conditional, denoiser.unconditional, latent, renoise, levels, generator
    )


def repair(demo: Demo, uncertainty: Uncertainty, index: int) -> tuple[Tensor, Tensor, bool]:
    """Scene ``index`` sampled again in its most suspicious region: result, mask, improved."""
    candidates = 4
    labels = demo.labels[index : index + 1]
    heat = uncertainty.signal("artifact").map[index : index + 1]
    mask = grow(threshold_mask(heat, percentile=88), 2)
    masked = MaskedRun(uncertainty.recording.select(index), mask[:, None], 0.7, candidates)
    recorder = Recorder(len(masked.sigmas) - 1)
    with bar(len(masked.sigmas) - 1, "sample a region again") as progress:
        process = SolverRun(
            ddim, demo.denoiser(labels), masked.start(renoise, demo.noise(candidates, 3)),
            masked.sigmas, callback=lambda _: progress.update(), observers=[recorder],
        )  # fmt: skip
        results = masked.finish(process.sample(masked.evaluate(process.denoise)))
    original = masked.recording.final
    sampled = recorder.finish(results, masked.sigmas).denoised
    late = max(late_evaluations(STEPS).start - masked.first_evaluation, 0)
    runs = torch.cat([sampled, masked.original_predictions()], 1)[late:].split(1, 1)
    scores = [
        pool(
            artifact(
                contrast_of(demo, demo.denoiser(labels), latent[None]), trajectory_variance(run)
            ),
            "mean",
            mask,
        )
        for latent, run in zip([*results, original[0]], runs, strict=True)
    ]
    best, improved = choose(torch.stack(scores[:-1]), scores[-1])
    chosen = results[best[0]] if improved[0] else original[0]
    return chosen[None], mask, bool(improved[0])


def pictures(latent: Tensor) -> Tensor:
    """Scenes as images (B, SIZE, SIZE, 3) in [0, 1], each pixel a square."""
    large = interpolate(latent.clamp(-1, 1) / 2 + 0.5, size=(SIZE, SIZE), mode="nearest")
    return large.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()


def heat_over(images: Tensor, maps: Tensor, opacity: float = 0.8) -> tuple[Tensor, Tensor]:
    """Heatmap and overlay (B, SIZE, SIZE, 3), one scale for the whole batch.

    Contrast is suspect above 0 only; below, the prompt explains the region.
    """
    maps = maps.clamp(min=0)
    limits = scale_limits(maps, "batch")
    large = upsample(maps, (SIZE, SIZE))
    heat = colorize(large, limits)
    return heat, overlay(images, heat, opacity, normalize(large, limits))


def write(name: str, image: Tensor) -> None:
    """Write one image (H, W, 3) in [0, 1]."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    pixels = (image.clamp(0, 1) * 255).round().byte().numpy()
    cv2.imwrite(str(OUTPUT / name), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def grid(rows: list[list[Tensor]], captions: list[list[str]]) -> Tensor:
    """Pictures in rows with a caption under each."""
    caption = 26
    cell_height, cell_width = SIZE + caption + GAP, SIZE + GAP
    sheet = torch.full(
        (len(rows) * cell_height + GAP, len(rows[0]) * cell_width + GAP, 3), GROUND
    ).numpy()
    for r, (row, texts) in enumerate(zip(rows, captions, strict=True)):
        for c, (picture, text) in enumerate(zip(row, texts, strict=True)):
            top, left = GAP + r * cell_height, GAP + c * cell_width
            sheet[top : top + SIZE, left : left + SIZE] = picture.numpy()
            centre = (left + SIZE / 2, top + SIZE + caption / 2)
            draw_text(sheet, text, centre, 15, INK, (0.5, 0.5))
    return torch.from_numpy(sheet)


def asked(labels: Tensor) -> str:
    a, b, c, d = labels.tolist()
    return f"{a} {b} / {c} {d}"


def write_pictures(demo: Demo, latent: Tensor, uncertainty: Uncertainty) -> Tensor:
    """Images, heatmaps, overlays and the ranked sheet; returns the order from sure to unsure."""
    images = pictures(latent)
    signal = uncertainty.signal("artifact")
    heats, overlays = heat_over(images, signal.map)
    for i in range(len(images)):
        write(f"scene_{i:02}.png", images[i])
        write(f"heatmap_{i:02}.png", heats[i])
        write(f"overlay_{i:02}.png", overlays[i])
    order = rank(signal.scores)
    columns = 8
    rows, captions = [], []
    for part in order.split(columns):
        rows += [[images[i] for i in part], [overlays[i] for i in part]]
        captions.append([f"asked {asked(demo.labels[i])}" for i in part])
        captions.append([f"score {signal.scores[i]:.3f}" for i in part])
    write("sheet_from_sure_to_unsure.png", grid(rows, captions))
    return order


def write_repair(demo: Demo, latent: Tensor, uncertainty: Uncertainty, index: int) -> str:
    """Before, heatmap with the mask's outline, after; returns a line for the terminal."""
    result, mask, improved = repair(demo, uncertainty, index)
    outside = (result - uncertainty.recording.final[index : index + 1])[mask[:, None] == 0]
    before, after = pictures(latent[index : index + 1]), pictures(result)
    _, overlays = heat_over(pictures(latent), uncertainty.signal("artifact").map)
    outline = (interpolate(mask[:, None], size=(SIZE, SIZE), mode="nearest") > 0.5)[:, 0].float()
    marked = contour(overlays[index : index + 1], outline)
    texts = [f"before, asked {asked(demo.labels[index])}", "what is sampled again", "after"]
    write("repair.png", grid([[before[0], marked[0], after[0]]], [texts]))
    verdict = "a candidate won" if improved else "the original stayed the best of five"
    return f"{verdict}; largest change outside the mask: {outside.abs().max().item():.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.perf_counter()
    network, config = load_model("digits")
    generator = torch.Generator().manual_seed(arguments.seed)
    labels = torch.randint(10, (16, 4), generator=generator)
    flow = FlowModel(network, config.sample_shape, labels)
    demo = Demo(flow, labels, config.null_label, arguments.seed)
    posterior = fit(demo)
    latent, uncertainty = sample(demo, posterior)
    order = write_pictures(demo, latent, uncertainty)
    report = write_repair(demo, latent, uncertainty, int(order[-1]))

    print(f"\nposterior: layer {flow.layer.name}, {posterior.features} features, "
          f"{posterior.structure}, noise variance {posterior.noise_variance:.3f}, "
          f"prior precision {posterior.prior_precision:.3g}")  # fmt: skip
    names = ["artifact", "contrast", "trajectory", "posterior"]
    print("\nscene  asked        " + "".join(f"{name:>12}" for name in names))
    for i in order.tolist():
        scores = "".join(f"{uncertainty.signals[name].scores[i]:12.4f}" for name in names)
        print(f"{i:5}  {asked(labels[i]):<12} {scores}")
    print(f"\nrepair of scene {int(order[-1])}: {report}")
    print(f"pictures in {OUTPUT}/ after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
