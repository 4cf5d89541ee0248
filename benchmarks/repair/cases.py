"""Regions to sample again, and the candidates that come of it with their scores."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdiff_core.flow_matching import FlowDenoiser, renoise
from bayesdiff_core.methods import PRESETS
from bayesdiff_core.methods.posterior_moves import posterior_moves
from bayesdiff_core.ranking import pool
from bayesdiff_core.recording import Recording
from bayesdiff_core.resample.candidates import Candidates, candidate_maps, sample_candidates
from bayesdiff_core.resample.masked_run import MaskedRun, RegionRun
from bayesdiff_core.resample.noise_modes import NOISE_MODES, Start, Starting
from bayesdiff_core.resample.regions import region_labels, region_scores
from bayesdiff_core.solver_run import Evaluation, ReferenceSolver, SolverRun
from bayesdiff_core.solvers import ddim
from bayesdiff_core.tiling import tile

from ..models import benchmark_model
from ..recorded_runs import Scenes

__all__ = [
    "MODES",
    "Case",
    "join",
    "posterior_scores",
    "quadrant_case",
    "sample_again",
    "score",
]

MODES = {
    "denoised": "denoised",
    "final": "final",
    "img2img": "img2img",
    "posterior, iid": "posterior",
    "posterior, tangents": "posterior_tangents",
}
"""The core's noise modes by the names of their rows."""


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
class Tried:
    """Scores of N candidates (N, B) and of the original (B,) inside the mask, by signal."""

    found: Candidates
    scores: dict[str, Tensor]
    original: dict[str, Tensor]

    @property
    def latents(self) -> Tensor:
        """(N, B, C, H, W)."""
        return self.found.latents.unflatten(0, (self.found.copies, -1))


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


def sample_again(
    case: Case, denoise: float, count: int, seed: int, mode: str = "denoised"
) -> Candidates:
    """`count` candidates by the sampler of the recording, as the product makes them."""
    masked = MaskedRun(case.recording, case.masks, denoise, count)
    region, start = begin(case, masked, seed, mode)
    run = SolverRun(ReferenceSolver(ddim, masked.sigmas), case.denoiser(), start)
    recording = case.recording
    return sample_candidates(region, run, recording.schedule, recording.final, masked)


def begin(case: Case, masked: MaskedRun, seed: int, mode: str) -> Starting:
    """The region's run and its initial states by a noise mode."""
    shape = tile(case.recording.final, masked.copies).shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def moves() -> Tensor:
        recording = case.recording
        solver = ReferenceSolver(ddim, recording.schedule)
        run = SolverRun(solver, case.denoiser(), recording.states[0])
        posterior = benchmark_model(case.model).posterior
        return posterior_moves(run, posterior, recording, masked.first_evaluation)

    return NOISE_MODES[MODES[mode]].begin(Start(masked, noise, renoise, moves))


def score(case: Case, found: Candidates) -> Tried:
    """Candidates compared by every signal at once; contrast has the same noise for all."""
    both = torch.cat([found.latents, found.original])
    contrast = case.denoiser().contrast(both, seed=0)
    labels = region_labels(case.masks)
    scores = {
        name: region_scores(maps, case.masks, labels)[..., 0]
        for name, maps in candidate_maps(found, contrast).items()
    }
    return Tried(
        found,
        {name: values[:-1] for name, values in scores.items()},
        {name: values[-1] for name, values in scores.items()},
    )


def posterior_scores(case: Case, denoise: float, count: int, seed: int) -> Tensor:
    """Posterior std (N, B) of the same candidates, by tangents along the part that runs again."""
    masked = MaskedRun(case.recording, case.masks, denoise, count)
    region, start = begin(case, masked, seed, "denoised")
    solver = ReferenceSolver(ddim, masked.sigmas)
    inside = InsideMask(case.denoiser(), region, masked.sigmas)
    run = SolverRun(solver, inside, start, mask=tile(case.masks, count))
    variance = PRESETS["balanced"].sample(run, benchmark_model(case.model).posterior).variance
    std = variance.mean(1).sqrt().unflatten(0, (count, -1))
    return torch.stack([pool(maps, "mean", case.masks[:, 0]) for maps in std])


@dataclass(frozen=True)
class InsideMask:
    """A denoiser of a masked run: outside the mask it sees and says what was recorded."""

    denoiser: FlowDenoiser
    run: RegionRun
    sigmas: Tensor

    @property
    def output_map(self):  # type: ignore[no-untyped-def]
        return self.denoiser.output_map

    def denoise(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.predict(z, sigma)[0]

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
