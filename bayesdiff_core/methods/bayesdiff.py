"""BayesDiff as published (Kou et al. 2024, section 3.2), kept selectable and honest.

With e the noise prediction of a single-step solver z' = a z + b e (+ noise),

    Var' = a^2 Var + 2 a b Cov(z, e) + b^2 Var(e),      E' = a E + b E(e),
    Cov(z, e) = mean(z_i e_i) - E mean(e_i),            z_i ~ N(E, Var), i = 1..S,

elementwise: pixels are treated as independent. The trajectory itself draws e from its predictive
distribution. For DPM-Solver-2 the covariance is taken with the midpoint evaluation and b is the
full step's. Between evaluated steps (skipping) Var' = a^2 Var. On small models the result follows
the true posterior hardly at all (docs/benchmarks.md): this is here to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..laplace import LaplacePosterior
from ..solver_run import Evaluation, Solver, SolverRun
from ..solver_trace import Trace
from .base import Propagated

__all__ = ["BayesDiff", "Recursion", "Step", "UnsupportedSolverError", "single_steps"]


class UnsupportedSolverError(ValueError):
    """The recursion is only defined for single-step solvers."""


@dataclass(frozen=True)
class Step:
    """z_end = a z_start + b e(z_used) + noise, by evaluation index; `end` may be the result."""

    start: int
    used: int
    end: int
    a: float
    b: float


@dataclass(frozen=True)
class BayesDiff:
    """`samples` is the paper's S = 10; every `skip`-th step is evaluated (1: all of them)."""

    samples: int = 10
    skip: int = 1
    seed: int = 0
    name: str = field(default="bayesdiff", init=False)

    def __post_init__(self) -> None:
        if self.samples < 2 or self.skip < 1:
            raise ValueError("BayesDiff needs at least two samples and a skip interval of 1.")

    def check(self, solver: Solver) -> None:
        """Raises UnsupportedSolverError where the solver is no single-step one."""
        if solver.adaptive:
            raise _unsupported(solver.name)
        single_steps(solver.trace, solver.name)

    def sample(self, run: SolverRun, posterior: LaplacePosterior) -> Propagated:
        """Latent, which the method perturbs by definition, and variance (B, C, *S)."""
        recursion = Recursion(self, run, posterior, single_steps(run.trace, run.name))
        latent = run.sample(recursion.evaluate)
        notes = {"negative_variances": recursion.negative_share}
        return Propagated(latent, recursion.variance, recursion.cost, notes)


class Recursion:
    """Mean and variance of the state, step by step along the run."""

    def __init__(
        self,
        method: BayesDiff,
        run: SolverRun,
        posterior: LaplacePosterior,
        steps: list[Step],
    ) -> None:
        self.method = method
        self.run = run
        self.posterior = posterior
        self.index = {step.used: i for i, step in enumerate(steps)}
        self.steps = steps
        self.mean = run.x
        self.variance = torch.zeros_like(run.x)
        self.generator = torch.Generator().manual_seed(method.seed)
        self.cost = 0.0
        self._negative: list[float] = []

    @property
    def negative_share(self) -> float:
        """Share of elements whose variance came out negative, over the evaluated steps."""
        return sum(self._negative) / max(len(self._negative), 1)

    def evaluate(self, k: int, z: Tensor, sigma: Tensor) -> Tensor:
        if k not in self.index:
            return self.run.denoise(k, z, sigma)
        i = self.index[k]
        step = self.steps[i]
        if i % self.method.skip:
            denoised = self.run.denoise(k, z, sigma)
            self.mean = step.a * self.mean + step.b * noise_prediction(z, sigma, denoised)
            self.variance = step.a**2 * self.variance
            return denoised
        evaluation = self.run.denoiser.evaluate(z, sigma)
        noise = noise_prediction(z, sigma, evaluation.predictions[0])
        noise_variance = self._noise_variance(evaluation, sigma)
        self._advance(step, noise, noise_variance, sigma)
        drawn = noise + noise_variance.sqrt() * self._randn(noise.shape, noise)
        return z - sigma * drawn

    def _advance(self, step: Step, noise: Tensor, noise_variance: Tensor, sigma: Tensor) -> None:
        """The recursion of mean and variance over one evaluated step."""
        covariance, mean_noise = torch.zeros_like(noise), noise
        if self.variance.any():
            states, predictions = self._monte_carlo(step, sigma)
            mean_noise = predictions.mean(0)
            covariance = (states * predictions).mean(0) - self.mean * mean_noise
        variance = (
            step.a**2 * self.variance
            + 2 * step.a * step.b * covariance
            + step.b**2 * noise_variance
        )
        self._negative.append((variance < 0).float().mean().item())
        self.variance = variance.clamp(min=0)
        self.mean = step.a * self.mean + step.b * mean_noise

    def _monte_carlo(self, step: Step, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """States z_i (S, B, C, *S) at the step's start and their noise predictions."""
        count = self.method.samples
        shape = (count, *self.mean.shape)
        states = self.mean + self.variance.sqrt() * self._randn(shape, self.mean)
        flat = states.flatten(0, 1)
        if step.used != step.start:
            flat = self._to_midpoint(flat, step)
        denoised = self.run.denoiser.predict(flat, sigma)[0]
        self.cost += count
        return states, noise_prediction(flat, sigma, denoised).unflatten(0, (count, -1))

    def _to_midpoint(self, states: Tensor, step: Step) -> Tensor:
        """The solver's own half step from the start to the midpoint, for every state."""
        sigma = self.run.trace.sigmas[step.start].to(states)
        denoised = self.run.denoiser.predict(states, sigma)[0]
        self.cost += self.method.samples
        a, b = decompose(self.run.trace, step.start, step.start, step.used)
        return a * states + b * noise_prediction(states, sigma, denoised)

    def _noise_variance(self, evaluation: Evaluation, sigma: Tensor) -> Tensor:
        """Var(e) (B, C, *S): the calls of guidance are added as if they were independent."""
        terms = evaluation.guidance or ((1.0, evaluation.features[0]),)
        variance = sum(weight**2 * phi.variance(self.posterior) for weight, phi in terms)
        scale = (evaluation.output_scale / sigma).square()
        return self.run.denoiser.output_map.to_latent(variance * scale[:, None])

    def _randn(self, shape: torch.Size | tuple[int, ...], like: Tensor) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(like)


def noise_prediction(z: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """e = (z - D) / sigma: epsilon for variance-exploding models, the velocity for flows."""
    return (z - denoised) / sigma


def single_steps(trace: Trace, name: str) -> list[Step]:
    """The steps of a single-step solver with at most one midpoint each.

    Raises `UnsupportedSolverError` when a state depends on more than the last one.
    """
    steps: list[Step] = []
    k = 0
    while k < trace.evaluations:
        for used in (k + 1, k):
            end = used + 1
            if end > trace.evaluations:
                continue
            try:
                a, b = decompose(trace, k, used, end)
            except ValueError:
                continue
            steps.append(Step(k, used, end, a, b))
            k = end
            break
        else:
            raise _unsupported(name)
    return steps


def _unsupported(name: str) -> UnsupportedSolverError:
    return UnsupportedSolverError(
        f"The published recursion covers single-step samplers only, not '{name}'. Use euler "
        "(DDIM), euler_ancestral (DDPM) or dpm_2 (DPM-Solver-2), or the method tangent, which "
        "covers all samplers."
    )


def decompose(trace: Trace, start: int, used: int, end: int) -> tuple[float, float]:
    """(a, b) with z_end = a z_start + b e_used + noise. Raises ValueError when there are none."""
    z_start, z_used, z_end = (_row(trace, k) for k in (start, used, end))
    unit = torch.zeros_like(z_used)
    unit[1 + used] = 1
    noise = (z_used - unit) / trace.sigmas[used].double()
    basis = torch.stack([z_start, noise], 1)
    solution = torch.linalg.lstsq(basis, z_end[:, None]).solution[:, 0]
    if (basis @ solution - z_end).abs().max() > 1e-4 * z_end.abs().max():
        raise ValueError("not a single step")
    return solution[0].item(), solution[1].item()


def _row(trace: Trace, k: int) -> Tensor:
    """Coefficients of state k in (x, D_0, D_1, ...), the noise draws before it left out."""
    return torch.cat([trace.start[k : k + 1], trace.predictions[k, :, 0]])
