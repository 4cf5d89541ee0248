"""The guider of a run: its derivative by every prediction, and the state that its functions keep.

How the guided denoised prediction D depends on the predictions of the single conditions is read
off the guider by forward-mode differentiation, for any guider and without a call of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CellType
from typing import Any

import comfy.samplers
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...bayesdiff_core.tiling import tile
from .feature_tap import CondCall, Tap

__all__ = [
    "GuiderState",
    "guider_derivative",
    "guider_state",
    "preserve_state",
    "recalled_state",
]


def guider_derivative(
    guider: comfy.samplers.CFGGuider,
    tap: Tap,
    calls: Sequence[CondCall],
    moving: tuple[int, int],
    sigma: Tensor,
    arguments: dict[str, Any],
    captured: list[Tensor],
) -> list[Tensor | None]:
    """Change of D, and of what else the sampler reads, when one prediction moves by 1 everywhere.

    Exact for guiders that act on each element alone. Where they look at the whole latent, as
    rescaling does, it is their answer to a uniform change.

    Arguments:
        guider: Of the run.
        tap: Answers in place of the model.
        calls: What the model was asked for, and what it answered.
        moving: Call and condition whose prediction moves.
        sigma: Noise level of every sample, shape (B,).
        arguments: Keyword arguments with which the sampler calls the guider.
        captured: Where functions among them leave further predictions that the sampler reads.

    Returns:
        Shape (B, C, *S) each; None where one does not depend on it.
    """

    def reply(index: tuple[int, int], prediction: Tensor) -> Tensor:
        primal = prediction.clone()
        if index != moving:
            return primal
        return forward_ad.make_dual(primal, torch.ones_like(primal))

    options = arguments["model_options"]
    # Forward mode has no tangents in inference mode, in which the host runs nodes.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        forward_ad.dual_level(),
        preserve_state(options, len(sigma)),
    ):
        replies = [
            [reply((j, i), prediction) for i, prediction in enumerate(call.predictions)]
            for j, call in enumerate(calls)
        ]
        with tap.answering(replies):
            denoised = guider(
                calls[0].x.clone(),
                sigma.clone(),
                model_options=options,
                seed=arguments.get("seed"),
            )
        return [forward_ad.unpack_dual(read).tangent for read in (denoised, *captured)]


GuiderState = list[tuple[CellType, Any]]
"""Variables in which functions among the model options keep something, with their values."""


def guider_state(model_options: dict[str, Any]) -> GuiderState:
    """What guidance functions keep at the moment.

    Arguments:
        model_options: Of the run; the functions among them are looked into.

    Returns:
        Every variable of their closures with its value, not a copy of it.
    """
    return [(cell, cell.cell_contents) for cell in _cells(model_options)]


@contextmanager
def recalled_state(state: GuiderState) -> Iterator[None]:
    """Within the context, guidance functions are as they were when a state was taken.

    Arguments:
        state: From `guider_state`.

    Yields:
        None; at the end they are as before.
    """
    now = [(cell, cell.cell_contents) for cell, _ in state]
    try:
        for cell, value in state:
            cell.cell_contents = value
        yield
    finally:
        for cell, value in now:
            cell.cell_contents = value


@contextmanager
def preserve_state(model_options: dict[str, Any], batch: int, copies: int = 1) -> Iterator[None]:
    """Undo at the end what functions among the options changed in their closures.

    Guidance with a momentum (APG) keeps the last step there; extra calls of the model between two
    steps of a run must leave it as they found it.

    Arguments:
        model_options: Of the run; the functions among them are looked into.
        batch: Number of latents of the run.
        copies: How often what is kept of a batch is repeated within the context, tile-major.

    Yields:
        None.
    """
    saved = guider_state(model_options)
    try:
        for cell, value in saved:
            if copies > 1 and isinstance(value, Tensor) and value.ndim > 3 and len(value) == batch:
                cell.cell_contents = tile(value, copies)
        yield
    finally:
        for cell, value in saved:
            cell.cell_contents = value


def _cells(model_options: dict[str, Any]) -> Iterator[CellType]:
    for option in model_options.values():
        for function in option if isinstance(option, list) else [option]:
            for cell in getattr(function, "__closure__", None) or ():
                try:
                    cell.cell_contents  # noqa: B018
                except ValueError:  # not yet assigned
                    continue
                yield cell
