"""A sampler of candidates run by the host, with its progress, as the host runs its own."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ....bayesdiff_core.solver_run import tile
from ..memory import is_out_of_memory
from ..validation import check_batches
from .candidates import CandidateSampler

__all__ = ["progress_of", "sample_again"]


def sample_again(
    model: Any,
    samples: Tensor,
    positive: Any,
    negative: Any,
    sampler: CandidateSampler,
    callback: Any = None,
) -> Tensor:
    """What `sampler` makes of latents (B, C, *S), the same to the bit where its mask is 0."""
    check_batches("positive", positive, len(samples))
    check_batches("negative", negative, len(samples))
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(sampler.way.cfg)
    sigmas = sampler.sigmas
    try:
        result = guider.sample(
            torch.zeros_like(samples),
            samples,
            sampler,
            sigmas.clone(),
            callback=callback or progress_of(model, sampler),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=sampler.seed,
        ).to(samples)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise torch.cuda.OutOfMemoryError(
            f"The memory does not hold even one candidate of {len(samples)} images. Give fewer "
            "images at a time, or smaller ones."
        ) from error
    copies = len(result) // len(samples)
    outside = tile(sampler.mask == 0, copies).expand_as(result)
    return torch.where(outside, tile(samples, copies), result)


def progress_of(model: Any, sampler: CandidateSampler, turn: int = 0, turns: int = 1) -> Any:
    """The host's preview and progress for one of several rounds, on one bar."""
    steps = len(sampler.sigmas) - 1
    show = latent_preview.prepare_callback(model, steps * turns)

    def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        show(turn * total + step, denoised, x, turns * total)

    return callback
