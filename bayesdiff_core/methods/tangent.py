"""Uncertainty by tangents of spatially coherent weight errors (the default method).

A weight error W + dW moves the denoised output at pixel p by c_out dW phi_p. Pixel-independent
errors are contracted by the denoiser; what survives to the image is the coherent part, the shift
that a whole channel takes. It is carried through the sampler exactly: a tangent dz obeys

    dD_k = J_k dz_k + s_k,     dz_{k+1} = sum_j beta_{k+1,j} dD_j,

with the solver's own coefficients beta, a finite-difference Jacobian product J_k dz_k, and the
source s_k(p) = c_out c_k r sigma_k(p) / mean(sigma_k): c_k = sqrt(m_k^T Sigma m_k) is the std of
the mean pixel's output, m_k the mean feature, r a pattern over channels, and
sigma_k(p) = sqrt(phi_p^T Sigma phi_p) shapes it. J and s are refreshed at a few evaluations and
dD is held in between. See docs/benchmarks.md for how close this comes to brute force.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..laplace import LaplacePosterior
from ..process import Evaluation, SolverProcess, tile
from .base import Propagated

__all__ = ["PRESETS", "Tangent", "channel_patterns", "refresh_schedule"]

STEP = 0.02
"""Length of the finite-difference step, relative to the rms of the state."""


@dataclass(frozen=True)
class Tangent:
    """`probes` tangents, refreshed `refreshes` times over the run.

    A latent with at most `probes` channels gets one tangent a channel, others mixed patterns.
    """

    probes: int = 3
    refreshes: int = 5
    name: str = field(default="tangent", init=False)

    def __post_init__(self) -> None:
        if self.probes < 1 or self.refreshes < 1:
            raise ValueError("The tangent method needs at least one probe and one refresh.")

    def sample(self, process: SolverProcess, posterior: LaplacePosterior) -> Propagated:
        """Latent and variance (B, C, *S), by at most probes * refreshes extra evaluations."""
        patterns = channel_patterns(process.x.shape[1], self.probes).to(process.x.device)
        run = TangentRun(process, posterior, patterns, self.refreshes)
        latent = process.sample(run.evaluate)
        variance, coherence = run.variance()
        return Propagated(
            latent,
            variance,
            cost=run.cost,
            notes={"probes": len(patterns), "coherence": coherence.mean().item()},
        )


PRESETS = {
    "fast": Tangent(probes=1, refreshes=5),
    "balanced": Tangent(probes=3, refreshes=5),
    "accurate": Tangent(probes=4, refreshes=15),
}


@dataclass
class Refresh:
    """What one refresh leaves behind: tangents of the outputs and the size of its source."""

    k: int
    tangents: list[Tensor]
    mean_feature: Tensor
    gain: Tensor
    scale: Tensor


class TangentRun:
    """The tangents of one run, built up evaluation by evaluation."""

    def __init__(
        self, process: SolverProcess, posterior: LaplacePosterior, patterns: Tensor, refreshes: int
    ) -> None:
        self.process = process
        self.posterior = posterior
        self.patterns = patterns
        self.trace = process.trace
        self.schedule = set(refresh_schedule(self.trace.evaluations, refreshes))
        self.history: list[Refresh] = []
        self.cost = 0.0

    def evaluate(self, k: int, z: Tensor, sigma: Tensor) -> Tensor:
        if k not in self.schedule:
            return self.process.denoise(k, z, sigma)
        evaluation = self.process.denoiser.evaluate(z, sigma)
        tangents = [self._source(evaluation, m) for m in range(len(evaluation.outputs))]
        mean_feature, scale = self._mean_feature(evaluation)
        gain = z.new_zeros(self.process.batch)
        if self.history:
            dz = self.state(k)
            moved = self._jacobian_products(z, sigma, evaluation, dz)
            gain = rayleigh(moved[0], dz)
            tangents = [s + j for s, j in zip(tangents, moved, strict=True)]
        self.history.append(Refresh(k, tangents, mean_feature, gain, scale))
        return evaluation.outputs[0]

    def state(self, row: int) -> Tensor:
        """Tangents (K, B, C, *S) of the state at evaluation `row` (the last row is the result)."""
        total = torch.zeros_like(self.history[0].tangents[0])
        for refresh, weight in zip(self.history, self._held_weights(row), strict=True):
            for tangent, w in zip(refresh.tangents, weight, strict=True):
                if w:
                    total = total + w * tangent
        return total

    def variance(self) -> tuple[Tensor, Tensor]:
        """Variance (B, C, *S) of the final state, and the factor (B,) of partial coherence."""
        variance = self.state(self.trace.evaluations).square().sum(0)
        coherence = self._coherence()
        return variance * coherence.view(-1, *[1] * (variance.ndim - 1)), coherence

    def _held_weights(self, row: int) -> list[list[float]]:
        """Solver weight of each refresh, which stands for all evaluations up to the next one."""
        starts = [refresh.k for refresh in self.history]
        ends = [*starts[1:], self.trace.evaluations]
        return [
            self.trace.outputs[row, a:b].sum(0).tolist() for a, b in zip(starts, ends, strict=True)
        ]

    def _jacobian_products(
        self, z: Tensor, sigma: Tensor, evaluation: Evaluation, dz: Tensor
    ) -> list[Tensor]:
        """J dz of every output, (K, B, C, *S) each, by one batched finite difference."""
        probes = len(dz)
        h = STEP * rms(z, 1) / rms(dz, 2).clamp(min=torch.finfo(dz.dtype).tiny)
        moved = tile(z, probes) + (h * dz).flatten(0, 1)
        outputs = self.process.denoiser.outputs(moved, sigma)
        self.cost += probes
        return [
            (output.unflatten(0, (probes, -1)) - base) / h
            for output, base in zip(outputs, evaluation.outputs, strict=True)
        ]

    def _source(self, evaluation: Evaluation, m: int) -> Tensor:
        """Shift of output m by a coherent weight error: (K, B, C, *S)."""
        output_map = self.process.denoiser.output_map
        whitened = self.posterior.whiten(evaluation.features[m])
        std = whitened.norm(dim=-1)
        free = self._free(std)
        amplitude = (whitened * free[..., None]).sum(1).norm(dim=-1)
        shape = std / (std * free).sum(1, keepdim=True).clamp(min=1e-20)
        # A channel that gathers p * p independent rows shifts by the mean of p * p errors.
        amplitude = evaluation.output_scale * amplitude / math.sqrt(output_map.rows_per_channel)
        shift = output_map.spread(shape * amplitude[:, None])
        if self.process.mask is not None:
            shift = shift * self.process.mask
        pattern = self.patterns.view(len(self.patterns), 1, -1, *[1] * (shift.ndim - 2))
        return pattern * shift

    def _mean_feature(self, evaluation: Evaluation) -> tuple[Tensor, Tensor]:
        """Whitened mean feature (B, D) of the first output and its c_out (B,)."""
        phi = evaluation.features[0]
        mean = (phi * self._free(phi[..., 0])[..., None]).sum(1)
        return self.posterior.whiten(mean), evaluation.output_scale

    def _free(self, like: Tensor) -> Tensor:
        """Weights (B, P) of the positions that are free to move; they sum to 1."""
        if self.process.mask is None:
            return torch.full_like(like, 1 / like.shape[1])
        mask = self.process.mask.expand_as(self.process.x)
        free = self.process.denoiser.output_map.average(mask)
        return free / free.sum(1, keepdim=True).clamp(min=1e-20)

    def _coherence(self) -> Tensor:
        """q^T C q / (q . c)^2 per sample (B,): shared weights err alike only as far as the mean
        features of different evaluations are alike."""
        history = self.history
        impulses = torch.zeros(len(history), len(history), self.process.batch)
        for r, refresh in enumerate(history):
            weights = [w[0] for w in self._held_weights(refresh.k)]
            state = sum(w * impulses[j] for j, w in enumerate(weights[:r]))
            impulses[r] = refresh.gain.cpu() * state
            impulses[r, r] += refresh.scale.cpu()
        weights = [w[0] for w in self._held_weights(self.trace.evaluations)]
        survival = sum(w * impulses[j] for j, w in enumerate(weights))
        means = torch.stack([refresh.mean_feature.cpu() for refresh in history])
        together = torch.einsum("kb,kbd->bd", survival, means).square().sum(-1)
        apart = (survival * means.norm(dim=-1)).sum(0).square()
        ratio = together / apart.clamp(min=1e-30)
        return ratio.clamp(max=1.0).to(self.process.x.device)


def channel_patterns(channels: int, probes: int) -> Tensor:
    """Patterns r (K, C) with E (sum_i (r_i . d)^2) = |d|^2: unit vectors, or orthogonal signs."""
    if channels <= probes:
        return torch.eye(channels)
    size = 1 << (max(channels, probes) - 1).bit_length()
    signs = torch.ones(1, 1)
    while len(signs) < size:
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    return signs[:probes, :channels] / math.sqrt(probes)


def refresh_schedule(evaluations: int, refreshes: int) -> list[int]:
    """Evaluations at which the Jacobian is refreshed, the first (which costs nothing) included."""
    if refreshes >= evaluations:
        return list(range(evaluations))
    last = evaluations - 1
    return sorted({0} | {round(last * (i + 1) / refreshes) for i in range(refreshes)})


def rms(values: Tensor, leading: int) -> Tensor:
    """Root mean square over all but the `leading` axes, which are kept."""
    return values.square().mean(tuple(range(leading, values.ndim)), keepdim=True).sqrt()


def rayleigh(moved: Tensor, dz: Tensor) -> Tensor:
    """Gain <dz, J dz> / <dz, dz> per sample (B,), over probes and elements."""
    product = (moved * dz).transpose(0, 1).flatten(1).sum(1)
    return product / dz.square().transpose(0, 1).flatten(1).sum(1).clamp(min=1e-30)
