"""Uncertainty by tangents: a few weight errors, carried exactly through the sampler (the default).

A weight error W + dW moves the denoised output at pixel p by the source s_k(p) = c_out dW phi_p.
From there its tangent dz obeys

    dD_k = J_k dz_k + s_k,     dz_{k+1} = sum_j beta_{k+1,j} dD_j,

with the solver's own coefficients beta and a finite-difference Jacobian product J_k dz_k. J and s
are refreshed at a few evaluations; in between dD goes on, damped, as it went between the last two.
Two kinds of tangent are followed:

- shifts: one coherent shift a channel, shaped by the predictive std,
  s_k(p) = c_out c_k r sigma_k(p) / mean(sigma_k) with c_k = sqrt(m_k^T Sigma m_k), m_k the mean
  feature, r a pattern over channels, sigma_k(p) = sqrt(phi_p^T Sigma phi_p). Errors that are
  independent from pixel to pixel are contracted by the denoiser; the coherent ones survive, so
  that the sum of squares of these few is close to the truth in shape. What they miss is what has
  no time to be contracted: the source of the last refresh. With its variance at every pixel,
  S = gamma (sum of squares) + LOCAL c_out^2 sigma_k(p)^2.
- draws: weights from the posterior, dW = L u, the same at every evaluation. Their squares are
  unbiased estimates of the variance, each with one degree of freedom.

The shape of the variance is their posterior mean when S, brought to the draws' mean of the image,
is taken as a scaled-inverse-chi-squared prior worth NU draws. Its level is the mean of S, worth
only NU_LEVEL draws, and of the draws' squares. gamma is GAMMA, but never more than all source
variance over its coherent part: 1 where every weight error is a constant shift. See
docs/benchmarks.md for how close this comes to brute force and what was tried before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..features import Features
from ..laplace import LaplacePosterior
from ..solver_run import Evaluation, SolverRun
from ..tiling import tile
from .base import Follower, Propagated, Record
from .sign_patterns import channel_patterns

__all__ = [
    "PRESETS",
    "Plan",
    "Tangent",
    "TangentRun",
    "refresh_schedule",
    "shifts_among",
]

STEP = 0.02
"""Length of the finite-difference step, relative to the rms of the state."""

NU = 12
"""How many draws the shifts are worth for the shape of the variance."""

NU_LEVEL = 2
"""How many draws the shifts are worth for its mean."""

SHIFTS = 3
"""Shifts to begin with; more of them, a third of all tangents, only where there are many."""

GAMMA = 2.0
"""Whole variance over that of the coherent shifts: their std is 0.68 to 0.72 of the truth's."""

LOCAL = 0.5
"""Share of the last refresh's source variance that is added to the shifts' squares."""

DAMPING = 0.7
"""How much of its last change, linear in the evaluations, a tangent between refreshes keeps."""

BEND = 0.7
"""Power by which the refreshes gather towards the end of the run."""

END = 0.98
"""Where in the run the last refresh is: at its end if short, one evaluation before if longer."""

SPACING = 7
"""Evaluations between two refreshes below which another refresh gains nothing."""


@dataclass(frozen=True)
class Plan:
    """What a run of the tangent method follows: `shifts`, `draws`, and when they are refreshed."""

    shifts: int
    draws: int
    refreshes: tuple[int, ...]


@dataclass(frozen=True)
class Tangent(Follower):
    """`probes` tangents, refreshed `refreshes` times over the run.

    `budget` limits the cost to so many extra guided evaluations per evaluation of the run: a short
    run is refreshed less often, then follows fewer probes. `seed` decides the weight draws; with
    the same one, runs can be compared.
    """

    probes: int = 5
    refreshes: int = 3
    budget: float = math.inf
    seed: int = 0
    name: str = field(default="tangent", init=False)

    def __post_init__(self) -> None:
        if self.probes < 1 or self.refreshes < 1 or self.budget <= 0:
            raise ValueError(
                "The tangent method needs at least one probe, one refresh and a budget above 0."
            )

    def plan(self, evaluations: int, channels: int) -> Plan:
        """Tangents and refreshes for a run of so many evaluations."""
        probes, refreshes = self.probes, self.refreshes
        if math.isfinite(self.budget):
            refreshes = min(refreshes, max(2, evaluations // SPACING))
            affordable = int(self.budget * evaluations / refreshes + 1e-9)
            probes = min(probes, max(1, affordable))
        shifts = shifts_among(probes, channels)
        schedule = tuple(refresh_schedule(evaluations, refreshes))
        return Plan(shifts, probes - shifts, schedule)

    def wanted(self, run: SolverRun) -> tuple[int, ...]:
        return self.plan(run.trace.evaluations, run.x.shape[1]).refreshes

    def propagate(
        self,
        run: SolverRun,
        posterior: LaplacePosterior,
        records: dict[int, Record],
        latent: Tensor,
    ) -> Propagated:
        """Variance (B, C, *S) of the latent, by at most probes * refreshes extra evaluations."""
        plan = self.plan(run.trace.evaluations, run.x.shape[1])
        tangents = TangentRun(run, posterior, plan, self.seed)
        for k in plan.refreshes:
            tangents.refresh(k, records[k])
        notes = {"shifts": plan.shifts, "draws": plan.draws, "refreshes": len(plan.refreshes) - 1}
        return Propagated(latent, tangents.variance(), tangents.cost, notes)


PRESETS = {
    "fast": Tangent(probes=3, refreshes=2, budget=0.2),
    "balanced": Tangent(probes=5, refreshes=3, budget=0.5),
    "accurate": Tangent(probes=20, refreshes=4, budget=2.0),
}


@dataclass(frozen=True)
class Source:
    """What the weight errors do to one prediction at one evaluation.

    `tangents` (K, B, C, *S) are its changes. `local` (B, C, *S) is LOCAL of its variance, less the
    coherent part, which the shifts carry. `gamma` (B,) is whole over coherent variance, at most
    GAMMA.
    """

    tangents: Tensor
    local: Tensor
    gamma: Tensor


@dataclass(frozen=True)
class Refresh:
    """What evaluation k left of every prediction: tangents (K, B, C, *S), local variance."""

    k: int
    tangents: list[Tensor]
    local: list[Tensor]


class TangentRun:
    """The tangents of one run, built up evaluation by evaluation: shifts first, then draws."""

    def __init__(
        self, run: SolverRun, posterior: LaplacePosterior, plan: Plan, seed: int = 0
    ) -> None:
        self.run = run
        self.posterior = posterior
        self.plan = plan
        self.trace = run.trace
        self.patterns = channel_patterns(run.x.shape[1], plan.shifts).to(run.x.device)
        generator = torch.Generator().manual_seed(seed)
        self.deltas = posterior.draw(plan.draws, generator).to(run.x.device)
        self.history: list[Refresh] = []
        self.gamma = run.x.new_ones(run.batch)
        self.cost = 0.0

    def refresh(self, k: int, record: Record) -> None:
        """Take up evaluation `k`; they come in their order."""
        with self.run.denoiser.recall(record.content) as evaluation:
            sources = [self._source(phi, evaluation.output_scale) for phi in evaluation.features]
            tangents = [source.tangents for source in sources]
            if self.history:
                z = record.z.to(self.run.x.device)
                moved = self._jacobian_products(z, record.sigma, evaluation, self.state(k))
                tangents = [own + carried for own, carried in zip(tangents, moved, strict=True)]
        self.gamma = sources[0].gamma
        self.history.append(Refresh(k, tangents, [source.local for source in sources]))

    def state(self, row: int) -> Tensor:
        """Tangents (K, B, C, *S) of the state at evaluation `row` (the last row is the result)."""
        total = torch.zeros_like(self.history[0].tangents[0])
        for refresh, weights in zip(self.history, self._held_weights(row), strict=True):
            for tangent, weight in zip(refresh.tangents, weights, strict=True):
                if weight:
                    total = total + weight * tangent
        return total

    def variance(self) -> Tensor:
        """Variance (B, C, *S) of the final state; zero where the solver asked for nothing."""
        if not self.history:
            return torch.zeros_like(self.run.x)
        moves, local = self.weighted_tangents(self.trace.evaluations)
        return moves.square().sum(0) + local

    def weighted_tangents(self, row: int) -> tuple[Tensor, Tensor]:
        """Tangents (K, B, C, *S) and local variance (B, C, *S) of the state at `row`.

        They are weighted so that the tangents' squares and it sum to the variance.
        """
        count = self.plan.draws
        shifts, draws = self.state(row).split([self.plan.shifts, count])
        shifts = shifts * self.gamma.sqrt().view(-1, *[1] * (self.run.x.ndim - 1))
        local = self._local(row)
        if count == 0:
            return shifts, local
        prior_mean = mean_of(shifts.square().sum(0) + local)
        draws_mean = mean_of(draws.square().mean(0))
        level = (NU_LEVEL * prior_mean + count * draws_mean) / (NU_LEVEL + count)
        prior_weight = NU / (NU + count) * level / prior_mean
        draws_weight = level / ((NU + count) * draws_mean)
        weighted = torch.cat([shifts * prior_weight.sqrt(), draws * draws_weight.sqrt()])
        return weighted, local * prior_weight

    def _local(self, row: int) -> Tensor:
        """Local variance (B, C, *S) of the state at `row`, by the solver's own weights alone."""
        total = torch.zeros_like(self.history[0].local[0])
        for refresh, weights in zip(self.history, self._held_weights(row), strict=True):
            for local, weight in zip(refresh.local, weights, strict=True):
                if weight:
                    total = total + weight**2 * local
        return total

    def _held_weights(self, row: int) -> list[list[float]]:
        """Solver weight of each refresh, which stands for all evaluations up to the next one.

        j evaluations after refresh i, dD = dD_i + DAMPING j / (k_i - k_(i-1)) (dD_i - dD_(i-1)).
        """
        starts = [refresh.k for refresh in self.history]
        ends = [*starts[1:], self.trace.evaluations]
        total = torch.zeros(len(starts), *self.trace.predictions.shape[2:], dtype=torch.double)
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            held = self.trace.predictions[row, start:end]
            total[i] += held.sum(0)
            if i > 0:
                ahead = torch.arange(end - start, dtype=held.dtype) / (start - starts[i - 1])
                change = DAMPING * (ahead[:, None] * held).sum(0)
                total[i] += change
                total[i - 1] -= change
        return total.tolist()

    def _jacobian_products(
        self, z: Tensor, sigma: Tensor, evaluation: Evaluation, dz: Tensor
    ) -> list[Tensor]:
        """J dz of every output, (K, B, C, *S) each, by one batched finite difference."""
        probes = len(dz)
        size = rms(dz, 2)
        # A sample whose mask is empty does not move: any step will do, but not an infinite one.
        h = torch.where(size > 0, STEP * rms(z, 1) / size, torch.ones_like(size))
        moved = tile(z, probes) + (h * dz).flatten(0, 1)
        predictions = self.run.denoiser.predict(moved, sigma)
        self.cost += probes
        return [
            (prediction.unflatten(0, (probes, -1)) - base) / h
            for prediction, base in zip(predictions, evaluation.predictions, strict=True)
        ]

    def _source(self, features: Features, scale: Tensor) -> Source:
        """What each weight error does to the prediction that these features (B, P, D) made."""
        variance = features.variance(self.posterior)
        free = self._free(variance)
        whole = (variance * free).sum(1)
        coherent = self.posterior.variance(features.mean(free))
        gamma = (whole / coherent.clamp(min=1e-30)).clamp(1.0, GAMMA)
        shape = variance.sqrt()
        shape = shape / (shape * free).sum(1, keepdim=True).clamp(min=1e-20)
        shifts = self._shifts(shape * (scale * coherent.sqrt())[:, None])
        sources = torch.cat([shifts, self._draws(features, scale)])
        rest = LOCAL * (1 - coherent / whole.clamp(min=1e-30)).clamp(min=0)
        local = self.run.denoiser.output_map.to_latent((scale**2 * rest)[:, None] * variance)
        mask = self.run.mask
        if mask is not None:
            sources, local = sources * mask, local * mask**2
        return Source(sources, local, gamma)

    def _shifts(self, size: Tensor) -> Tensor:
        """Shifts (K, B, C, *S) by the patterns over channels, from the size (B, P) of a row's."""
        # A channel may gather p * p independent rows; one shift of all stands for theirs.
        shift = self.run.denoiser.output_map.to_latent(size)
        return self.patterns.view(len(self.patterns), 1, -1, *[1] * (shift.ndim - 2)) * shift

    def _draws(self, features: Features, scale: Tensor) -> Tensor:
        """Changes (K, B, C, *S) by the weight draws, all of them in one run of the layer."""
        if not len(self.deltas):
            return self.run.x.new_zeros(0, *self.run.x.shape)
        changes = features.outputs(self.deltas.flatten(0, 1)) * scale[:, None, None]
        gather = self.run.denoiser.output_map.gather
        return torch.stack([gather(change) for change in changes.chunk(len(self.deltas), -1)])

    def _free(self, like: Tensor) -> Tensor:
        """Weights (B, P) of the positions that are free to move; they sum to 1."""
        if self.run.mask is None:
            return torch.full_like(like, 1 / like.shape[1])
        mask = self.run.mask.expand_as(self.run.x)
        free = self.run.denoiser.output_map.average(mask)
        return free / free.sum(1, keepdim=True).clamp(min=1e-20)


def shifts_among(probes: int, channels: int) -> int:
    """How many of so many tangents are shifts; the others are draws."""
    return min(channels, probes, max(SHIFTS, probes // 3))


def refresh_schedule(evaluations: int, refreshes: int) -> list[int]:
    """Evaluations at which the Jacobian is refreshed, the first (which costs nothing) included."""
    if refreshes >= evaluations:
        return list(range(evaluations))
    last = END * (evaluations - 1)
    return sorted({0} | {round(last * (i / refreshes) ** BEND) for i in range(1, refreshes + 1)})


def mean_of(values: Tensor) -> Tensor:
    """Mean of every sample of (B, ...), kept as axes of length one and never 0."""
    means = values.mean(tuple(range(1, values.ndim)), keepdim=True)
    return means.clamp(min=torch.finfo(values.dtype).tiny)


def rms(values: Tensor, leading: int) -> Tensor:
    """Root mean square over all but the `leading` axes, which are kept."""
    return values.square().mean(tuple(range(leading, values.ndim)), keepdim=True).sqrt()
