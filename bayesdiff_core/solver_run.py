"""One run of a solver on one batch: what every method of uncertainty works with.

A `Denoiser` is what the solver calls; a `SolverRun` runs the solver with it, lets observers
look at every evaluation, and can run the same solver again on copies of the batch with the same
noise. Copies are tile-major: row c * B + b of a batch of n copies is copy c of sample b.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from .features import Features
from .last_layer import OutputMap
from .solver_trace import DrawNoise, Evaluate, Trace, trace_solver
from .solvers import Solver

__all__ = ["Denoiser", "Evaluation", "Observer", "SolverRun", "tile"]

EvaluateStep = Callable[[int, Tensor, Tensor], Tensor]
"""(k, state z (N, C, *S), noise level sigma ()) -> denoised (N, C, *S)."""


@dataclass(frozen=True)
class Evaluation:
    """A denoiser's predictions together with the last-layer features that made them.

    `predictions` are the guided denoised one D (B, C, *S) and, for solvers that read it, the
    unconditional one. `features` holds for each of them phi (B, P, D) combined over the calls of
    guidance as the predictions were: dD = output_scale * dW phi. `output_scale` (B,) is c_out.
    `guidance` lists the calls behind D as (weight, features) where the denoiser knows them apart.
    """

    predictions: tuple[Tensor, ...]
    features: tuple[Features, ...]
    output_scale: Tensor
    guidance: tuple[tuple[float, Features], ...] = ()


class Denoiser(Protocol):
    """The guided denoiser a solver calls, with its last layer open to view."""

    @property
    def output_map(self) -> OutputMap:
        """The way from last-layer positions to latent elements for this shape of latent."""

    def predict(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        """Predictions at z (n * B, C, *S), tile-major, at noise level sigma ()."""

    def evaluate(self, z: Tensor, sigma: Tensor) -> Evaluation:
        """Predictions at z (B, C, *S) with their features."""

    def perturbed(self, deltas: Tensor) -> AbstractContextManager[None]:
        """Within the context copy c of the batch runs with last-layer weights W + deltas[c]."""


class Observer(Protocol):
    """Looks at every evaluation of the main run, changes nothing."""

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None: ...


class SolverRun:
    """A solver, a denoiser and the initial state x (B, C, *S) in the space the solver sees.

    `reads` is the number of predictions of an evaluation that the solver reads. `mask`
    (B, 1, *S) is 1 where the latent is free to move. `noise` draws the solver's noise in the main
    run; the draws are kept for replays.
    """

    def __init__(
        self,
        solver: Solver,
        denoiser: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        *,
        name: str = "solver",
        reads: int = 1,
        mask: Tensor | None = None,
        noise: DrawNoise | None = None,
        options: dict[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.solver = solver
        self.denoiser = denoiser
        self.x = x
        self.sigmas = sigmas
        self.name = name
        self.reads = reads
        self.mask = mask
        self.options = options or {}
        self.callback = callback
        self.observers = list(observers)
        self.draws: list[Tensor] = []
        self._noise = noise or (lambda: torch.randn_like(x))

    @property
    def batch(self) -> int:
        return len(self.x)

    @cached_property
    def trace(self) -> Trace:
        """The solver's linear coefficients on this schedule."""

        def run(x: Tensor, evaluate: Evaluate, draw: DrawNoise) -> Tensor:
            return self._solve(lambda _k, z, s: evaluate(z, s)[0], x, self.sigmas.cpu(), draw)

        return trace_solver(run, self.reads, name=self.name)

    def denoise(self, _k: int, z: Tensor, sigma: Tensor) -> Tensor:
        """The plain evaluation: what the solver would see without us."""
        return self.denoiser.predict(z, sigma)[0]

    def sample(self, evaluate: EvaluateStep | None = None) -> Tensor:
        """The main run from x: observers look on, noise is drawn and kept. Returns (B, C, *S)."""
        evaluate = evaluate or self.denoise
        self.draws.clear()

        def watched(k: int, z: Tensor, sigma: Tensor) -> Tensor:
            denoised = evaluate(k, z, sigma)
            for observer in self.observers:
                observer.observe(k, z, sigma, denoised)
            return denoised

        return self._solve_main(watched)

    def replay(self, evaluate: EvaluateStep, copies: int = 1) -> Tensor:
        """The same run on `copies` of the batch with the noise of the main run: (n * B, C, *S)."""
        draws = iter(self.draws)
        return self._solve(
            evaluate, tile(self.x, copies), self.sigmas, lambda: tile(next(draws), copies)
        )

    def _solve_main(self, evaluate: EvaluateStep) -> Tensor:
        def draw() -> Tensor:
            self.draws.append(self._noise())
            return self.draws[-1]

        return self._solve(evaluate, self.x, self.sigmas, draw, callback=self.callback)

    def _solve(
        self,
        evaluate: EvaluateStep,
        x: Tensor,
        sigmas: Tensor,
        draw: DrawNoise,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> Tensor:
        counter = iter(range(1 << 30))

        def model(z: Tensor, sigma: Tensor, **_arguments: Any) -> Tensor:
            return evaluate(next(counter), z, sigma.flatten()[0])

        options = dict(self.options)
        if "noise_sampler" in inspect.signature(self.solver).parameters:
            options["noise_sampler"] = lambda _sigma, _sigma_next: draw()
        solver: Any = self.solver
        return solver(model, x, sigmas, callback=callback, disable=True, **options)


def tile(tensor: Tensor, copies: int) -> Tensor:
    """`copies` of a batch (B, ...), tile-major: (n * B, ...)."""
    return tensor if copies == 1 else tensor.repeat(copies, *[1] * (tensor.ndim - 1))
