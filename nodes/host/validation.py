"""Refuses unusable latents, prompts, masks and model options in words, before the model runs."""

from __future__ import annotations

from typing import Any

import comfy.utils
import torch
from torch import Tensor

from ...bayesdiff_core.recording import Recording

__all__ = ["check_batches", "check_latent", "check_options", "is_recorded", "latent_mask"]


def check_latent(latent: dict[str, Any]) -> Tensor:
    """The samples (B, C, *S) of a LATENT. Raises ValueError in words when they are unusable."""
    samples = latent["samples"]
    if getattr(samples, "is_nested", False):
        raise ValueError(
            "This latent holds several tensors (video with audio), which is not supported. Use a "
            "plain image or video latent."
        )
    if not torch.isfinite(samples).all():
        bad = int((~torch.isfinite(samples)).sum())
        raise ValueError(
            f"The latent holds {bad} values that are NaN or infinite. Look at what made it: the "
            "image is lost already there."
        )
    return samples


def check_batches(name: str, conditioning: Any, batch: int) -> None:
    """Raises ValueError when a batch of prompts is neither one nor one for each latent."""
    for entry in conditioning:
        rows = 1 if entry[0] is None else len(entry[0])
        if rows not in (1, batch):
            raise ValueError(
                f"{name} holds {rows} prompts but there are {batch} latents. Give one prompt for "
                "all, or one for each."
            )


def check_options(model_options: dict[str, Any]) -> None:
    """Raises ValueError when the features of a call cannot be told from the model's options."""
    if "context_handler" in model_options:
        raise ValueError(
            "A posterior cannot be followed through context windows yet. Disconnect the LAPLACE "
            "input, or remove the context windows from the model."
        )
    if "easycache" in model_options.get("transformer_options", {}):
        raise ValueError(
            "EasyCache and LazyCache leave out calls of the model that a posterior needs. "
            "Disconnect the LAPLACE input, or remove the cache from the model."
        )
    if "multigpu_clones" in model_options:
        raise ValueError(
            "A posterior cannot be followed through a model that is spread over several devices "
            "yet. Disconnect the LAPLACE input, or remove MultiGPU CFG Split from the model."
        )


def is_recorded(model: Any, samples: Tensor, recording: Recording) -> bool:
    """Whether latents (B, C, *S) are the result of a recorded run, to rounding.

    A recording may be kept in half precision, and some samplers end a little above 0.
    """
    if samples.shape != recording.final.shape:
        return False
    leave = model.get_model_object("model_sampling").inverse_noise_scaling
    clean = leave(recording.schedule[-1], recording.final.float())
    result = model.model.process_latent_out(clean)
    return bool((samples.cpu() - result).abs().max() <= 3e-3 * result.abs().max())


def latent_mask(mask: Tensor, samples: Tensor) -> Tensor:
    """Mask (B, 1, *S) in [0, 1] at the size of the latents. Raises ValueError if it cannot be."""
    mask = mask.detach().cpu().float()
    if not torch.isfinite(mask).all():
        raise ValueError("The mask holds NaN or infinite values. Make it anew.")
    count = mask.reshape(-1, *mask.shape[-2:]).shape[0]
    if samples.ndim == 4 and count not in (1, len(samples)):
        raise ValueError(
            f"There are {count} masks but {len(samples)} latents. Give one mask for all, or one "
            "for each."
        )
    shape = (len(samples), 1, *samples.shape[2:])
    return comfy.utils.reshape_mask(mask, shape).clamp(0, 1).contiguous()
