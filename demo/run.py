"""The main job without a host: ``python -m demo.run``.

Fits a posterior, samples 16 scenes of handwritten digits, draws where each is unsure of itself,
ranks them, and samples the most suspicious region again. Pictures go to ``output/demo``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bayesdiff_core.flow_matching import FlowDenoiser, FlowModel, renoise
from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.mask import grow, threshold_mask
from bayesdiff_core.methods import PRESETS
from bayesdiff_core.ranking import rank
from bayesdiff_core.render.heatmap import scale_limits
from bayesdiff_core.render.marks import contour
from bayesdiff_core.render.pictures import Look, draw
from bayesdiff_core.render.upsample import upsample
from bayesdiff_core.resample.candidates import sample_candidates
from bayesdiff_core.resample.masked_run import MaskedRun
from bayesdiff_core.resample.noise_modes import NOISE_MODES, Start
from bayesdiff_core.resample.region_choice import choose_regions, composed_latents
from bayesdiff_core.resample.regions import region_labels
from bayesdiff_core.resample.rules import RULES
from bayesdiff_core.sample import UncertaintyOptions, sample_with_uncertainty
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas
from bayesdiff_core.uncertainty import Uncertainty

from .bundle import load_model
from .contact_sheet import contact_sheet, enlarge, write_picture

OUTPUT = Path("output/demo")
STEPS = 30
SCALE = 6  # side of a latent pixel in the pictures


@dataclass(frozen=True)
class Demo:
    """The digits model, the labels (B, 4) of the scenes, and the seed of all that is random."""

    flow: FlowModel
    labels: Tensor
    null_label: int
    seed: int

    def denoiser(self, labels: Tensor) -> FlowDenoiser:
        """The denoiser without guidance, of scenes with labels (B, 4)."""
        return FlowDenoiser(self.flow, labels, torch.full_like(labels, self.null_label))

    def noise(self, count: int, offset: int) -> Tensor:
        """Noise (count, 1, 32, 32), a different one for every offset."""
        generator = torch.Generator().manual_seed(self.seed + offset)
        return torch.randn(count, 1, 32, 32, generator=generator)


def bar(total: int, text: str) -> tqdm:
    """A progress bar over solver steps."""
    return tqdm(total=total, desc=f"{text:<22}", unit="step", ncols=78, leave=True)


def euler(sigmas: Tensor, progress: tqdm) -> ReferenceSolver:
    """The solver of every run: Euler's method on the steps ``sigmas``."""
    return ReferenceSolver(ddim, sigmas, callback=lambda _: progress.update())


def fit(demo: Demo) -> LaplacePosterior:
    """A posterior on samples of the model's own, so that no data set is needed."""
    generator = torch.Generator().manual_seed(demo.seed)
    labels = torch.randint(10, (64, 4), generator=generator)
    with bar(STEPS + 1, "fit: sample, then sum") as progress:
        solver = euler(flow_sigmas(STEPS), progress)
        images = SolverRun(solver, demo.denoiser(labels), demo.noise(64, 1)).sample()
        sums = demo.flow.fit(iter([(images, labels)]), generator, draws=8)
        progress.update()
    return demo.flow.posterior(sums)


def sample(demo: Demo, posterior: LaplacePosterior) -> tuple[Tensor, Uncertainty]:
    """Scenes (B, 1, 32, 32) with all their signals."""
    count, denoiser = len(demo.labels), demo.denoiser(demo.labels)
    with bar(STEPS, f"sample {count} scenes") as progress:
        run = SolverRun(euler(flow_sigmas(STEPS), progress), denoiser, demo.noise(count, 2))
        options = UncertaintyOptions(posterior, PRESETS["balanced"])
        contrast_of = partial(denoiser.contrast, seed=demo.seed)
        return sample_with_uncertainty(run, options, contrast_of=contrast_of)


def repair(demo: Demo, uncertainty: Uncertainty, index: int) -> tuple[Tensor, Tensor, bool]:
    """Sample the most suspicious regions of a scene again.

    Returns:
        The latent (1, 1, 32, 32), the mask (1, 1, 32, 32), and whether a candidate was taken.
    """
    heat = uncertainty.signal("artifact").map[index : index + 1]
    mask = grow(threshold_mask(heat, percentile=88), 2)[:, None]
    denoiser = demo.denoiser(demo.labels[index : index + 1])
    candidates = 4
    recorded = MaskedRun(uncertainty.recording.select(index), mask, 0.7, candidates)
    noise = demo.noise(candidates, 3)
    # This mode starts from fresh noise and asks for no moves of the posterior.
    start = Start(recorded, noise, renoise, moves=lambda: noise[:0])
    region, states = NOISE_MODES["denoised"].begin(start)
    with bar(len(recorded.sigmas) - 1, "sample a region again") as progress:
        run = SolverRun(euler(recorded.sigmas, progress), denoiser, states)
        schedule, original = recorded.recording.schedule, recorded.recording.final
        found = sample_candidates(region, run, schedule, original, recorded)
    of_latents, labels = partial(denoiser.contrast, seed=demo.seed), region_labels(mask)
    choice = choose_regions(found, mask, labels, RULES["auto"], contrast_of=of_latents)
    return composed_latents(found, choice), mask, choice.improved


def heat_over(images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmap and overlay (B, H, W, 3), one scale for the whole batch.

    Contrast is suspect above 0 only; below, the prompt explains the region.
    """
    maps = maps.clamp(min=0)
    low, high = scale_limits(maps, "batch")[0].tolist()
    look = Look(scale="fixed", limits=(low, high), opacity=0.8)
    large = upsample(maps, images.shape[1:3])
    no_mask = torch.zeros_like(large)
    return draw(maps, large, no_mask, None, look), draw(maps, large, no_mask, images, look)


def asked(labels: Tensor) -> str:
    """The four labels of a scene, row by row."""
    a, b, c, d = labels.tolist()
    return f"{a} {b} / {c} {d}"


def write_pictures(demo: Demo, latent: Tensor, uncertainty: Uncertainty) -> Tensor:
    """Images, heatmaps, overlays and the ranked sheet; returns the order from sure to unsure."""
    signal = uncertainty.signal("artifact")
    images = enlarge(latent, SCALE)
    heats, overlays = heat_over(images, signal.map)
    for kind, pictures in (("scene", images), ("heatmap", heats), ("overlay", overlays)):
        for i, picture in enumerate(pictures):
            write_picture(OUTPUT / f"{kind}_{i:02}.png", picture)
    order = rank(signal.scores)
    columns = 8
    cells, captions = [], []
    for row in order.split(columns):
        cells += [images[row], overlays[row]]
        captions += [f"asked {asked(labels)}" for labels in demo.labels[row]]
        captions += [f"score {score:.3f}" for score in signal.scores[row]]
    sheet = contact_sheet(torch.cat(cells), columns, captions)
    write_picture(OUTPUT / "sheet_from_sure_to_unsure.png", sheet)
    return order


def write_repair(demo: Demo, latent: Tensor, uncertainty: Uncertainty, index: int) -> str:
    """Before, heatmap with the mask's outline, after; returns a line for the terminal."""
    result, mask, improved = repair(demo, uncertainty, index)
    outside = (result - uncertainty.recording.final[index : index + 1])[mask == 0]
    images = enlarge(latent, SCALE)
    _, overlays = heat_over(images, uncertainty.signal("artifact").map)
    outline = enlarge(mask * 2 - 1, SCALE)[..., 0]
    marked = contour(overlays[index : index + 1], outline)
    texts = [f"before, asked {asked(demo.labels[index])}", "what is sampled again", "after"]
    row = torch.cat([images[index : index + 1], marked, enlarge(result, SCALE)])
    write_picture(OUTPUT / "repair.png", contact_sheet(row, len(row), texts))
    verdict = "a candidate won" if improved else "the original stayed the best of five"
    return f"{verdict}; largest change outside the mask: {outside.abs().max().item():.1f}"


def main() -> None:
    """Command line."""
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
