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
from ..recording import Recording
from ..solver_run import SolverRun
from .tangent import Plan, TangentRun, refresh_schedule, shifts_among

__all__ = ["draw_moves", "posterior_moves"]


def posterior_moves(
    process: SolverRun,
    posterior: LaplacePosterior,
    recording: Recording,
    row: int,
    probes: int = 5,
    refreshes: int = 3,
) -> Tensor:
    """Moves (K, B, C, *S) of the state at evaluation `row` whose squares sum to its variance.

    What is independent from pixel to pixel is left out: the next evaluations would contract it.

    `process` is the solver on the whole recorded schedule with a denoiser open to view. Costs at
    most refreshes * (1 + probes) evaluations. Raises ValueError at the first evaluation: there the
    state is the initial noise, on which the weights have no influence.
    """
    if row < 1:
        raise ValueError(
            "At denoise 1 the run starts from noise, which a posterior does not move. Lower "
            "denoise, for instance to 0.7, or start from fresh noise."
        )
    channels = recording.final.shape[1]
    shifts = shifts_among(probes, channels)
    plan = Plan(shifts, probes - shifts, tuple(refresh_schedule(row, refreshes)))
    run = TangentRun(process, posterior, plan)
    for k in plan.refreshes:
        run.evaluate(k, recording.states[k].to(process.x), recording.sigmas[k].to(process.x))
    return run.weighted_tangents(row)[0]


def draw_moves(moves: Tensor, noise: Tensor, along: bool) -> Tensor:
    """Displacements (n * B, C, *S) of variance sum of squares of `moves` (K, B, C, *S).

    From `noise` of that shape: pixel by pixel, or `along` the moves with one number a move.
    """
    batch = moves.shape[1]
    if not along:
        std = moves.square().sum(0).sqrt()
        return noise * std.repeat(len(noise) // batch, *[1] * (std.ndim - 1))
    # Numbers from the noise itself: every candidate has its own.
    weights = noise.flatten(1)[:, : len(moves)].unflatten(0, (-1, batch))
    return torch.einsum("nbk,kb...->nb...", weights, moves).flatten(0, 1)
