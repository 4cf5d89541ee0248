"""How far a posterior moves the state at one step of a recorded run.

Kou et al. (2024, section 4.2) sample an image again from x_t ~ N(E x_t, Var x_t). The state that
was recorded stands for E x_t. Var x_t comes from tangents (see methods/tangent.py) that are
followed along the recorded states up to that step: only the evaluations at which they are
refreshed are made, and the solver does not run. In docs/evidence.md this repaired no malformed
region, neither pixel by pixel nor along the tangents; it gives variants of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..laplace import LaplacePosterior
from ..map_checks import check_whole
from ..recording import Recording
from ..solver_run import SolverRun
from ..tiling import tile
from .base import Record
from .tangent import Plan, TangentRun, refresh_schedule, shifts_among

__all__ = ["along_moves", "independent_moves", "posterior_moves"]


def posterior_moves(
    run: SolverRun,
    posterior: LaplacePosterior,
    recording: Recording,
    row: int,
    probes: int = 5,
    refreshes: int = 3,
) -> Tensor:
    """Moves (K, B, C, *S) of the state at evaluation `row` whose squares sum to its variance.

    What is independent from pixel to pixel is left out: the next evaluations would contract it.

    `run` is the solver on the whole recorded schedule with a denoiser open to view. Costs at
    most refreshes * (1 + probes) evaluations. Raises ValueError at the first evaluation: there the
    state is the initial noise, on which the weights have no influence.
    """
    check_whole(row, "The evaluation", 0, len(recording.states) - 1)
    check_whole(probes, "The number of probes", 1)
    check_whole(refreshes, "The number of refreshes", 1)
    if row < 1:
        raise ValueError(
            "At denoise 1 the run starts from noise, which a posterior does not move. Lower "
            "denoise, for instance to 0.7, or start from fresh noise."
        )
    channels = recording.final.shape[1]
    shifts = shifts_among(probes, channels)
    plan = Plan(shifts, probes - shifts, tuple(refresh_schedule(row, refreshes)))
    tangents = TangentRun(run, posterior, plan)
    for k in plan.refreshes:
        z, sigma = recording.states[k].to(run.x), recording.sigmas[k].to(run.x)
        tangents.refresh(k, Record(z, sigma, run.denoiser.record(z, sigma)[1]))
    return tangents.weighted_tangents(row)[0]


def independent_moves(moves: Tensor, noise: Tensor) -> Tensor:
    """Displacements of every pixel on its own, with the variance that the moves sum to.

    Arguments:
        moves: Shape (K, B, C, *S).
        noise: White, shape (n * B, C, *S), tile-major.

    Returns:
        Shape (n * B, C, *S).
    """
    return noise * tile(moves.square().sum(0).sqrt(), len(noise) // moves.shape[1])


def along_moves(moves: Tensor, noise: Tensor) -> Tensor:
    """Displacements along the moves, each with one number per move; arguments as above."""
    # Numbers from the noise itself: every candidate has its own.
    weights = noise.flatten(1)[:, : len(moves)].unflatten(0, (-1, moves.shape[1]))
    return torch.einsum("nbk,kb...->nb...", weights, moves).flatten(0, 1)
