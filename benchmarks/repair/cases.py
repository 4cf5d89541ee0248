"""Regions to sample again, and the candidates that come of it with their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdiff_core.flow_matching import FlowDenoiser
from bayesdiff_core.methods import PRESETS
from bayesdiff_core.methods.posterior_moves import draw_moves, posterior_moves
from bayesdiff_core.ranking import pool
from bayesdiff_core.recording import Recorder, Recording
from bayesdiff_core.resample.masked_run import MaskedRun, RenoisedRun
from bayesdiff_core.signals import (
    CONTRAST_LEVELS,
    artifact,
    contrast,
    late_evaluations,
    trajectory_variance,
)
from bayesdiff_core.solver_run import Evaluation, SolverRun
from bayesdiff_core.solvers import ddim
from bayesdiff_core.tiling import tile

from ..models import benchmark_model
from ..recorded_runs import Scenes, renoise

__all__ = [
    "MODES",
    "Candidates",
    "Case",
    "Start",
    "join",
    "look",
    "quadrant_case",
    "sample_again",
]

RegionRun = MaskedRun | RenoisedRun

Start = Callable[["Case", MaskedRun, Tensor], tuple[RegionRun, Tensor]]
"""(case, masked run, fresh noise) -> the run, perhaps without its recording, and its start."""


@dataclass(frozen=True)
class Case:
    """B recorded scenes of a model, their labels (B, L), and masks (B, 1, H, W) to sample again.

    `quadrant` (B,) is the region meant, where there is one.
    """

    model: str
    recording: Recording
    labels: Tensor
    masks: Tensor
    quadrant: Tensor | None = None

    def denoiser(self) -> FlowDenoiser:
        return benchmark_model(self.model).denoiser(self.labels, 1.0)

    def select(self, index: Tensor) -> Case:
        return Case(
            self.model,
            self.recording.select(index),
            self.labels[index],
            self.masks[index],
            None if self.quadrant is None else self.quadrant[index],
        )

    def split(self, size: int) -> Iterable[Case]:
        return (self.select(index) for index in torch.arange(len(self.labels)).split(size))


@dataclass(frozen=True)
class Candidates:
    """N candidates of B scenes: latents (N, B, C, H, W), and scores inside the mask (N, B).

    `original` holds the same scores (B,) of the recorded result. `run` is the recording of the
    candidates (E', N * B, ...), `maps` their artifact (N, B, H, W).
    """

    latents: Tensor
    scores: dict[str, Tensor]
    original: dict[str, Tensor]
    maps: Tensor
    run: Recording


def quadrant_case(scenes: Scenes, index: Tensor) -> Case:
    """The quadrants `index` (B, 2), rows of (scene, quadrant), of a batch of scenes."""
    scene, quadrant = index.unbind(1)
    height, width = (side // 2 for side in scenes.latent.shape[-2:])
    masks = torch.zeros(len(index), 1, 2 * height, 2 * width)
    for mask, q in zip(masks, quadrant.tolist(), strict=True):
        top, left = height * (q // 2), width * (q % 2)
        mask[:, top : top + height, left : left + width] = 1
    recording = scenes.recording.select(scene)
    return Case(scenes.setting.model, recording, scenes.labels[scene], masks, quadrant)


def join(cases: list[Case]) -> Case:
    """One case of several of the same model and schedule."""
    recordings = [case.recording for case in cases]
    return Case(
        cases[0].model,
        Recording(
            torch.cat([r.states for r in recordings], 1),
            torch.cat([r.denoised for r in recordings], 1),
            recordings[0].sigmas,
            recordings[0].schedule,
            torch.cat([r.final for r in recordings]),
        ),
        torch.cat([case.labels for case in cases]),
        torch.cat([case.masks for case in cases]),
        torch.cat([case.quadrant for case in cases if case.quadrant is not None]),
    )


def around_prediction(_case: Case, run: MaskedRun, noise: Tensor) -> tuple[RegionRun, Tensor]:
    """Fresh noise around the recorded denoised prediction."""
    return run, run.start(renoise, noise)


def around_final(_case: Case, run: MaskedRun, noise: Tensor) -> tuple[RegionRun, Tensor]:
    """Fresh noise around the final picture; outside, the recorded run."""
    return run, run.start(renoise, noise, around="final")


def image_to_image(_case: Case, run: MaskedRun, noise: Tensor) -> tuple[RegionRun, Tensor]:
    """Plain inpainting: the final picture, noised anew at every step, stands for the recording."""
    plain = RenoisedRun(run.clean, run.mask, renoise, noise[: len(run.clean)], run.copies)
    return plain, plain.start(renoise, run.sigmas[0], noise)


def along_tangents(case: Case, run: MaskedRun, noise: Tensor) -> tuple[RegionRun, Tensor]:
    """No fresh noise: the recorded state, moved along tangents of the posterior."""
    return run, run.moved(draw_moves(moves_of(case, run), noise, along=True))


def independent_pixels(case: Case, run: MaskedRun, noise: Tensor) -> tuple[RegionRun, Tensor]:
    """The published way, x_t ~ N(E x_t, Var x_t) pixel by pixel (Kou et al. 2024, section 4.2)."""
    return run, run.moved(draw_moves(moves_of(case, run), noise, along=False))


def moves_of(case: Case, run: MaskedRun) -> Tensor:
    recording = case.recording
    process = SolverRun(ddim, case.denoiser(), recording.states[0], recording.schedule)
    posterior = benchmark_model(case.model).posterior
    return posterior_moves(process, posterior, recording, run.first_evaluation)


MODES: dict[str, Start] = {
    "denoised": around_prediction,
    "final": around_final,
    "img2img": image_to_image,
    "posterior, iid": independent_pixels,
    "posterior, tangents": along_tangents,
}


def sample_again(
    case: Case,
    denoise: float,
    count: int,
    seed: int,
    start: Start = around_prediction,
    posterior: bool = False,
) -> Candidates:
    """`count` candidates by the sampler of the recording; with `posterior` also that score.

    The candidates' posterior std comes from tangents along the part that runs again, zero outside
    the mask.
    """
    denoiser = case.denoiser()
    run = MaskedRun(case.recording, case.masks, denoise, count)
    shape = tile(case.recording.final, count).shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    sigmas = run.sigmas
    again, first = start(case, run, noise)
    recorder = Recorder(len(sigmas) - 1)
    process = SolverRun(
        ddim,
        InsideMask(denoiser, again, sigmas),
        first,
        sigmas,
        mask=tile(case.masks, count),
        observers=[recorder],
    )
    variance = None
    if posterior:
        model = benchmark_model(case.model)
        result = PRESETS["balanced"].sample(process, model.posterior)
        final, variance = again.finish(result.latent), result.variance
    else:
        final = again.finish(process.sample())
    recorded = recorder.finish(final, sigmas)
    assert recorded is not None, recorder.note

    masks, original = case.masks[:, 0], case.recording.final
    latents = final.unflatten(0, (count, -1))
    total = len(case.recording.denoised)
    again_from = total - len(recorded.denoised)
    late = max(again_from, late_evaluations(total).start)
    again_denoised = recorded.denoised[late - again_from :].unflatten(1, (count, -1))
    looks = [
        look(denoiser, latent, denoised)
        for latent, denoised in zip(latents, again_denoised.unbind(1), strict=True)
    ]
    before = look(denoiser, original, case.recording.denoised[late:])
    scores = {
        name: torch.stack([pool(maps[name], "mean", masks) for maps in looks]) for name in before
    }
    if variance is not None:
        std = variance.mean(1).sqrt().unflatten(0, (count, -1))
        scores["posterior"] = torch.stack([pool(m, "mean", masks) for m in std])
    return Candidates(
        latents,
        scores,
        {name: pool(values, "mean", masks) for name, values in before.items()},
        torch.stack([maps["artifact"] for maps in looks]),
        recorded,
    )


def look(denoiser: FlowDenoiser, latent: Tensor, denoised: Tensor) -> dict[str, Tensor]:
    """The product's signals (B, H, W) of latents and of the predictions (E, B, C, H, W) that led
    to them.

    Contrast has the same noise for every latent, so that differences are theirs.
    """
    sides = (denoiser.conditional, denoiser.unconditional)
    levels = {t: torch.tensor(t) for t in CONTRAST_LEVELS}
    found = contrast(*sides, latent, renoise, levels, torch.Generator().manual_seed(0))
    trajectory = trajectory_variance(denoised)
    return {
        "trajectory": trajectory,
        "contrast": found.map,
        "artifact": artifact(found, trajectory),
    }


@dataclass(frozen=True)
class InsideMask:
    """A denoiser of a masked run: outside the mask it sees and says what was recorded."""

    denoiser: FlowDenoiser
    run: RegionRun
    sigmas: Tensor

    @property
    def output_map(self):  # type: ignore[no-untyped-def]
        return self.denoiser.output_map

    def predict(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        def plain(_k: int, inside: Tensor, s: Tensor) -> Tensor:
            return self.denoiser.predict(inside, s)[0]

        return (self._of(z).evaluate(plain)(self._step(sigma), z, sigma),)

    def evaluate(self, z: Tensor, sigma: Tensor) -> Evaluation:
        found: list[Evaluation] = []

        def watched(_k: int, inside: Tensor, s: Tensor) -> Tensor:
            found.append(self.denoiser.evaluate(inside, s))
            return found[0].predictions[0]

        blended = self._of(z).evaluate(watched)(self._step(sigma), z, sigma)
        return replace(found[0], predictions=(blended,))

    def perturbed(self, deltas: Tensor) -> AbstractContextManager[None]:
        return self.denoiser.perturbed(deltas)

    def _of(self, z: Tensor) -> RegionRun:
        """The run for as many copies as z has."""
        return replace(self.run, copies=len(z) // len(self.run.mask))

    def _step(self, sigma: Tensor) -> int:
        return int((self.sigmas[:-1] - sigma).abs().argmin())
