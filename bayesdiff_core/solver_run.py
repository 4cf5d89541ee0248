"""One run of a solver on one batch: what every method of uncertainty works with.

A `Denoiser` is what the solver calls, a `Solver` is what runs the algorithm: the core's own
functions (`ReferenceSolver`), or those of a host. A `SolverRun` puts both together, lets observers
look at every evaluation, and can run the same solver again on copies of the batch with the same
noise. Copies are tile-major: row c * B + b of a batch of n copies is copy c of sample b.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor

from .features import Features
from .last_layer import OutputMap
from .map_checks import check_finite
from .solver_trace import DrawNoise, Evaluate, Trace, trace_solver
from .solvers import SamplerFunction
from .tiling import tile

__all__ = [
    "Denoiser",
    "Draw",
    "EvaluateStep",
    "Evaluation",
    "Observer",
    "PlainDenoiser",
    "ReferenceSolver",
    "Solver",
    "SolverRun",
]

EvaluateStep = Callable[[int, Tensor, Tensor], Tensor]
"""(k, state z (N, C, *S), noise level sigma ()) -> denoised (N, C, *S)."""

Draw = Callable[[DrawNoise], Tensor]
"""Given what draws the solver's own noise, the noise (N, C, *S) that the solver gets."""


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
    """The guided denoiser a solver calls, with access to its last layer."""

    @property
    def output_map(self) -> OutputMap:
        """Where every latent element comes from in the last layer, for this shape of latent."""

    def denoise(self, z: Tensor, sigma: Tensor) -> Tensor:
        """D at z (n * B, C, *S), tile-major, at noise level sigma (): what the solver asks for."""

    def predict(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        """All predictions that the solver reads, at z (n * B, C, *S), beside the run."""

    def evaluate(self, z: Tensor, sigma: Tensor) -> Evaluation:
        """Predictions at z (B, C, *S) with their features."""

    def record(self, z: Tensor, sigma: Tensor, whole: bool = True) -> tuple[Tensor, Any]:
        """What `denoise` gives, and a record from which `recall` knows more; only looks on.

        Where it is not `whole`, `recall` evaluates again: of many records few will be recalled.
        """

    def recall(self, record: Any) -> AbstractContextManager[Evaluation]:
        """The recorded evaluation; within the context `predict` answers as at that time."""

    def perturbed(self, deltas: Tensor) -> AbstractContextManager[None]:
        """Within the context copy c of the batch runs with last-layer weights W + deltas[c]."""


class PlainDenoiser:
    """Base of denoisers without a state of their own: a record is the evaluation itself."""

    def denoise(self: Denoiser, z: Tensor, sigma: Tensor) -> Tensor:
        """D at z (n * B, C, *S), tile-major, at noise level sigma ()."""
        return self.predict(z, sigma)[0]

    def record(
        self: Denoiser, z: Tensor, sigma: Tensor, whole: bool = True
    ) -> tuple[Tensor, Evaluation]:
        """D at z (B, C, *S), and the evaluation behind it."""
        evaluation = self.evaluate(z, sigma)
        return evaluation.predictions[0], evaluation

    def recall(self, record: Evaluation) -> AbstractContextManager[Evaluation]:
        """The evaluation that was recorded."""
        return nullcontext(record)


class Observer(Protocol):
    """Looks at every evaluation of the main run, changes nothing."""

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None: ...


class Solver(Protocol):
    """A sampling algorithm on one schedule.

    `sigmas` (steps + 1,) are its steps and `reads` how many predictions of an evaluation it reads:
    1, or 2 when it also reads the unconditional one. One that is `adaptive` chooses its steps by
    the image: it has a trace once it has sampled.
    """

    @property
    def name(self) -> str: ...

    @property
    def sigmas(self) -> Tensor: ...

    @property
    def reads(self) -> int: ...

    @property
    def adaptive(self) -> bool: ...

    @property
    def trace(self) -> Trace:
        """Its linear coefficients on this schedule."""

    def sample(self, x: Tensor, evaluate: EvaluateStep, draw: Draw) -> Tensor:
        """The run that was asked for, with its progress: from x to the final state (B, C, *S)."""

    def replay(self, x: Tensor, evaluate: EvaluateStep, draw: Draw) -> Tensor:
        """The same steps from x (n * B, C, *S), with no effect on anything else."""


class ReferenceSolver:
    """A sampler function in the form of k-diffusion, see `solvers`, as a `Solver`."""

    def __init__(
        self,
        function: SamplerFunction,
        sigmas: Tensor,
        *,
        name: str = "solver",
        noise: DrawNoise | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """`noise` draws the solver's own noise in the main run; `callback` is told every step."""
        self.function = function
        self.sigmas = sigmas
        self.name = name
        self.reads = 1
        self.adaptive = False
        self._noise = noise
        self._callback = callback

    @cached_property
    def trace(self) -> Trace:
        def run(x: Tensor, evaluate: Evaluate, draw: DrawNoise) -> Tensor:
            return self._run(
                x, self.sigmas.cpu(), lambda _k, z, s: evaluate(z, s)[0], lambda _own: draw()
            )

        return trace_solver(run, self.reads, name=self.name)

    def sample(self, x: Tensor, evaluate: EvaluateStep, draw: Draw) -> Tensor:
        return self._run(x, self.sigmas, evaluate, draw, self._callback)

    def replay(self, x: Tensor, evaluate: EvaluateStep, draw: Draw) -> Tensor:
        return self._run(x, self.sigmas, evaluate, draw)

    def _run(
        self,
        x: Tensor,
        sigmas: Tensor,
        evaluate: EvaluateStep,
        draw: Draw,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> Tensor:
        counter = count()
        own = self._noise or (lambda: torch.randn_like(x))

        def model(z: Tensor, sigma: Tensor) -> Tensor:
            return evaluate(next(counter), z, sigma.flatten()[0])

        options: dict[str, Any] = {}
        if "noise_sampler" in inspect.signature(self.function).parameters:
            options["noise_sampler"] = lambda _sigma, _sigma_next: draw(own)
        function: Any = self.function
        return function(model, x, sigmas, callback=callback, disable=True, **options)


class SolverRun:
    """A solver, a denoiser and the initial state x (B, C, *S) in the space the solver sees.

    `mask` (B, 1, *S) is 1 where the latent is free to move. The noise that the main run draws is
    kept in `draws` for replays.
    """

    def __init__(
        self,
        solver: Solver,
        denoiser: Denoiser,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        check_finite(solver.sigmas, "The schedule")
        self.solver = solver
        self.denoiser = denoiser
        self.x = x
        self.mask = mask
        self.observers = list(observers)
        self.draws: list[Tensor] = []

    @property
    def name(self) -> str:
        return self.solver.name

    @property
    def sigmas(self) -> Tensor:
        return self.solver.sigmas

    @property
    def trace(self) -> Trace:
        return self.solver.trace

    @property
    def batch(self) -> int:
        return len(self.x)

    def denoise(self, _k: int, z: Tensor, sigma: Tensor) -> Tensor:
        """The plain evaluation: what the solver would see without us."""
        return self.denoiser.denoise(z, sigma)

    def sample(self, evaluate: EvaluateStep | None = None) -> Tensor:
        """The main run from x: observers look on, noise is drawn and kept. Returns (B, C, *S)."""
        evaluate = evaluate or self.denoise
        self.draws.clear()

        def observed(k: int, z: Tensor, sigma: Tensor) -> Tensor:
            denoised = evaluate(k, z, sigma)
            for observer in self.observers:
                observer.observe(k, z, sigma, denoised)
            return denoised

        def kept(own: DrawNoise) -> Tensor:
            self.draws.append(own())
            return self.draws[-1]

        return self.solver.sample(self.x, observed, kept)

    def replay(self, evaluate: EvaluateStep, copies: int = 1) -> Tensor:
        """The same run on `copies` of the batch with the noise of the main run: (n * B, C, *S)."""
        draws = iter(self.draws)
        return self.solver.replay(
            tile(self.x, copies), evaluate, lambda _own: tile(next(draws), copies)
        )
