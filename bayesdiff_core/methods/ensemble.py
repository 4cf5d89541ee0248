"""Brute force: the spread of whole runs with last-layer weights drawn from the posterior.

This is the Bayesian model average itself (T1: one weight vector a run) and the truth that the
other methods are measured against; with fresh weights at every step (T2) it is what the published
recursion assumes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..laplace import LaplacePosterior
from ..running_moments import RunningMoments
from ..solver_run import SolverRun
from .base import Follower, Propagated, Record

__all__ = ["Ensemble"]


@dataclass(frozen=True)
class Ensemble(Follower):
    """`members` runs from the same noise, `chunk` at a time; memory does not grow with `members`.

    `fresh_weights` draws new weights at every evaluation (T2). With `keep_members` the members'
    latents (M, B, C, *S) are returned in the notes, on the CPU.
    """

    members: int = 32
    seed: int = 0
    fresh_weights: bool = False
    chunk: int = 4
    keep_members: bool = False
    name: str = field(default="ensemble", init=False)

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ValueError("An ensemble needs at least two members to have a variance.")

    def propagate(
        self,
        run: SolverRun,
        posterior: LaplacePosterior,
        records: dict[int, Record],
        latent: Tensor,
    ) -> Propagated:
        """Variance (B, C, *S) of the latent over `members` whole runs with the same noise."""
        generator = torch.Generator("cpu").manual_seed(self.seed)
        moments = RunningMoments()
        kept: list[Tensor] = []
        for first in range(0, self.members, self.chunk):
            count = min(self.chunk, self.members - first)
            results = self._run(run, posterior, count, generator)
            for member in results:
                moments.add(member)
            if self.keep_members:
                kept.extend(member.to("cpu", copy=True) for member in results)
        notes = {"members": torch.stack(kept)} if kept else {}
        cost = self.members * run.trace.evaluations
        return Propagated(latent, moments.variance(), float(cost), notes)

    def _run(
        self,
        run: SolverRun,
        posterior: LaplacePosterior,
        count: int,
        generator: torch.Generator,
    ) -> Tensor:
        """`count` members (count, B, C, *S)."""
        shared = self._draw(posterior, count, generator, run.x.device)

        def evaluate(k: int, z: Tensor, sigma: Tensor) -> Tensor:
            deltas = shared
            if self.fresh_weights and k > 0:
                deltas = self._draw(posterior, count, generator, z.device)
            with run.denoiser.perturbed(deltas):
                return run.denoise(k, z, sigma)

        return run.replay(evaluate, count).unflatten(0, (count, -1))

    @staticmethod
    def _draw(
        posterior: LaplacePosterior, count: int, generator: torch.Generator, device: torch.device
    ) -> Tensor:
        return posterior.draw(count, generator).to(device)
