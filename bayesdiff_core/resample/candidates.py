"""Candidates for the regions of a mask, sampled in one batch, and maps to compare them by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..recording import Recorder, Recording
from ..signals import (
    Contrast,
    TrajectoryVariance,
    artifact,
    late_evaluations,
    trajectory_variance,
)
from ..solver_run import SolverRun
from .masked_run import MaskedRun, RegionRun

__all__ = ["Candidates", "candidate_maps", "sample_candidates"]


@dataclass(frozen=True)
class Candidates:
    """N candidates of B images in the space the model sees.

    `latents` (N * B, C, *S), tile-major, and `original` (B, C, *S) are final states. `trajectory`
    (N * B, *S) is the variance of their predictions; of the original (B, *S) it is known where
    there is a recording on the same steps, `before`, whose last evaluations the candidates'
    `recording` replaces.
    """

    latents: Tensor
    original: Tensor
    trajectory: Tensor
    original_trajectory: Tensor | None
    recording: Recording | None
    before: Recording | None

    @property
    def copies(self) -> int:
        """The number N of candidates per image."""
        return len(self.latents) // len(self.original)


def sample_candidates(
    region: RegionRun,
    run: SolverRun,
    schedule: Tensor,
    original: Tensor,
    recorded: MaskedRun | None = None,
    budget_mb: float = 2048.0,
) -> Candidates:
    """Sample the candidates of a region.

    Arguments:
        region: Holds the image outside the mask.
        run: The solver on the part of the schedule that runs again, from the candidates' initial
            states (N * B, C, *S).
        schedule: The whole schedule (steps + 1,).
        original: Final state (B, C, *S) that the candidates compete with.
        recorded: The recorded run on the same steps, where there is one.
        budget_mb: Memory for the candidates' own recording.

    Returns:
        The candidates, with the original to the bit where the mask is 0.
    """
    evaluations = run.trace.evaluations
    before = None if recorded is None else recorded.recording
    # How many evaluations the whole schedule takes, were it not recorded.
    total = round(evaluations * (len(schedule) - 1) / (len(run.sigmas) - 1))
    total = total if before is None else len(before.sigmas)
    first = total - evaluations if recorded is None else recorded.first_evaluation
    trajectory = TrajectoryVariance(total)
    recorder = Recorder(total - first, budget_mb)
    run.observers += [_From(first, trajectory), recorder]
    final = region.finish(run.sample(region.evaluate(run.denoise)))
    return Candidates(
        final,
        original if before is None else before.final,
        trajectory.map(),
        None if before is None else _late_variance(before, first),
        recorder.finish(final, schedule),
        before,
    )


def candidate_maps(found: Candidates, contrast: Contrast | None) -> dict[str, Tensor]:
    """What candidates can be compared by, (N + 1, B, *S) each, the original last; low is good.

    Arguments:
        found: N candidates of B images.
        contrast: Of all candidates and then of the original, (N + 1) * B, where it is known.

    Returns:
        Maps by signal; NaN for an original of which nothing is known.
    """
    original = found.original_trajectory
    if original is None:
        original = torch.full_like(found.trajectory[: len(found.original)], float("nan"))
    trajectory = torch.cat([found.trajectory, original.to(found.trajectory)])
    maps = {"trajectory": trajectory}
    if contrast is not None:
        maps |= {"contrast": contrast.map, "artifact": artifact(contrast, trajectory)}
    return {name: values.unflatten(0, (found.copies + 1, -1)) for name, values in maps.items()}


@dataclass(frozen=True)
class _From:
    """Observer of a run that is the end of another one, which begins at evaluation `first`."""

    first: int
    observer: TrajectoryVariance

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        self.observer.observe(self.first + k, z, sigma, denoised)


def _late_variance(recording: Recording, first: int) -> Tensor:
    """The trajectory's variance (B, *S) over the late evaluations from `first` on."""
    late = late_evaluations(len(recording.sigmas))
    return trajectory_variance(recording.denoised[max(first, late.start) :])
