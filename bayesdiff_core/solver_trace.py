"""The linear skeleton of a solver, read off by impulse response.

For fixed sigmas every solver in use computes linear combinations of the initial state, the
denoiser's predictions and its noise draws. Run it once on a tensor (1, K, 1, 1) whose channels are
those basis vectors, with a denoiser that answers with the next unit impulse, and the states it
visits ARE the coefficients. No solver has to be described by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "DrawNoise",
    "Evaluate",
    "SolverRunner",
    "Trace",
    "UntraceableSolverError",
    "trace_solver",
]

Evaluate = Callable[[Tensor, Tensor], Sequence[Tensor]]
DrawNoise = Callable[[], Tensor]

SolverRunner = Callable[[Tensor, Evaluate, DrawNoise], Tensor]
"""Runs a solver: (state, evaluate(z, sigma) -> predictions, draw() -> noise) -> final state."""


class UntraceableSolverError(ValueError):
    """The solver is not a fixed linear combination of its inputs."""


@dataclass(frozen=True)
class Trace:
    """Coefficients of the evaluation points z_k and of the final state.

    With E evaluations that return M predictions each (1, or 2 when the solver also reads the
    unconditional prediction) and N noise draws:

        z_k = start[k] x + sum_{j<k,m} predictions[k, j, m] D_jm + sum_n noise[k, n] xi_n

    for k = 0..E, where row E is the final state. All are float64: `start` (E + 1,), `predictions`
    (E + 1, E, M), `noise` (E + 1, N). `sigmas` (E,) are the noise levels of the evaluations.
    """

    start: Tensor
    predictions: Tensor
    noise: Tensor
    sigmas: Tensor

    @property
    def evaluations(self) -> int:
        """Number E of evaluations."""
        return len(self.sigmas)

    def reconstruct(
        self, row: int, x: Tensor, predictions: Sequence[Sequence[Tensor]], noise: Sequence[Tensor]
    ) -> Tensor:
        """A state of the run as the linear combination that it is.

        Arguments:
            row: Evaluation k in 0..E, where E is the final state.
            x: Initial state, any shape.
            predictions: D_jm of all evaluations before `row`, M for each.
            noise: All noise draws of the run before `row`.

        Returns:
            z_k, in the shape of x.
        """
        state = self.start[row].item() * x
        for j, read in enumerate(predictions):
            for m, tensor in enumerate(read):
                coefficient = self.predictions[row, j, m].item()
                if coefficient:
                    state = state + coefficient * tensor
        for n, draw in enumerate(noise):
            coefficient = self.noise[row, n].item()
            if coefficient:
                state = state + coefficient * draw
        return state


def trace_solver(run: SolverRunner, reads: int = 1, name: str = "solver") -> Trace:
    """Traces the solver behind `run`: two runs on basis vectors, without a model.

    Arguments:
        run: Runs the solver on a state of any number of channels.
        reads: Number M of predictions that an evaluation returns.
        name: Of the solver, for errors.

    Raises:
        UntraceableSolverError: If the solver changes the shape of its state, adds a constant of
            its own, decides by the data how often to evaluate, or has coefficients that are not
            finite.
    """
    evaluations, draws = _count(run, reads, name)
    width = 2 + evaluations * reads + draws
    basis = torch.eye(width).view(width, 1, width, 1, 1)
    # Channel 1 has no source: whatever arrives there, the solver added by itself.
    x = basis[0]
    points: list[Tensor] = []
    sigmas: list[float] = []
    state = {"draws": 0}

    def evaluate(z: Tensor, sigma: Tensor) -> Sequence[Tensor]:
        if z.shape != x.shape:
            raise UntraceableSolverError(_reshapes(name))
        k = len(points)
        if k >= evaluations:
            raise UntraceableSolverError(_data_dependent(name))
        points.append(z.detach().clone().flatten())
        sigmas.append(float(sigma.flatten()[0]))
        first = 2 + k * reads
        return [basis[first + m].to(z) for m in range(reads)]

    def draw() -> Tensor:
        n = state["draws"]
        if n >= draws:
            raise UntraceableSolverError(_data_dependent(name))
        state["draws"] += 1
        return basis[2 + evaluations * reads + n]

    final = run(x.clone(), evaluate, draw)
    if final.shape != x.shape:
        raise UntraceableSolverError(_reshapes(name))
    if len(points) != evaluations or state["draws"] != draws:
        raise UntraceableSolverError(_data_dependent(name))
    rows = torch.stack([*points, final.flatten()]).double()
    if not torch.isfinite(rows).all():
        raise UntraceableSolverError(
            f"The coefficients of '{name}' on this schedule are not finite. Use another scheduler "
            "or fewer steps."
        )
    if rows[:, 1].abs().max() > 1e-5 * rows.abs().max():
        raise UntraceableSolverError(f"'{name}' adds a constant of its own to the latent.")
    split = 2 + evaluations * reads
    return Trace(
        start=rows[:, 0],
        predictions=rows[:, 2:split].unflatten(1, (evaluations, reads)),
        noise=rows[:, split:],
        sigmas=torch.tensor(sigmas),
    )


def _count(run: SolverRunner, reads: int, name: str) -> tuple[int, int]:
    """Evaluations and noise draws of one run."""
    counts = [0, 0]
    x = torch.ones(1, 1, 1, 1)

    def evaluate(z: Tensor, _sigma: Tensor) -> Sequence[Tensor]:
        if z.shape != x.shape:
            raise UntraceableSolverError(_reshapes(name))
        counts[0] += 1
        return [torch.zeros_like(z)] * reads

    def draw() -> Tensor:
        counts[1] += 1
        return torch.zeros_like(x)

    run(x, evaluate, draw)
    return counts[0], counts[1]


def _reshapes(name: str) -> str:
    return (
        f"The sampler '{name}' changes the size of the latent on its way, so uncertainty cannot "
        "be carried through it. Use for instance euler or dpmpp_2m."
    )


def _data_dependent(name: str) -> str:
    return (
        f"The sampler '{name}' chooses its steps by the image, so its steps cannot be known "
        "beforehand. Use for instance euler or dpmpp_2m."
    )
