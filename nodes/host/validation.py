"""Refuses unusable latents, prompts, masks and model options in words, before the model runs."""

from __future__ import annotations

from typing import Any

import comfy.utils
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d

from ...bayesdiff_core.recording import Recording

__all__ = ["check_batches", "check_latent", "check_options", "is_recorded", "latent_mask"]


def check_latent(latent: dict[str, Any]) -> Tensor:
    """The samples of a LATENT, if they are usable.

    Arguments:
        latent: LATENT.

    Returns:
        Its samples, shape (B, C, *S).

    Raises:
        ValueError: If it holds several tensors, or values that are not finite.
    """
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
    """Refuses a batch of prompts that is neither one nor one for each latent.

    Arguments:
        name: How the error names the prompts, beginning a sentence.
        conditioning: CONDITIONING.
        batch: Number of latents.

    Raises:
        ValueError: If an entry holds another number of prompts.
    """
    for entry in conditioning:
        rows = 1 if entry[0] is None else len(entry[0])
        if rows not in (1, batch):
            raise ValueError(
                f"{name} holds {rows} prompts but there are {batch} latents. Give one prompt for "
                "all, or one for each."
            )


def check_options(model_options: dict[str, Any]) -> None:
    """Refuses options with which the features of a call cannot be told.

    Arguments:
        model_options: Of the run.

    Raises:
        ValueError: If there are context windows, a cache of calls, or several devices.
    """
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
    """Whether latents are the result of a recorded run.

    A recording may be kept in half precision, and some samplers end a little above 0.

    Arguments:
        model: The MODEL.
        samples: Latents as nodes exchange them, shape (B, C, *S).
        recording: Of the run, in the space the model sees.

    Returns:
        True for the same shape and differences of at most 0.3 % of the largest value.
    """
    if samples.shape != recording.final.shape:
        return False
    leave = model.get_model_object("model_sampling").inverse_noise_scaling
    clean = leave(recording.schedule[-1], recording.final.float())
    result = model.model.process_latent_out(clean)
    return bool((samples.cpu() - result).abs().max() <= 3e-3 * result.abs().max())


def latent_mask(mask: Tensor, samples: Tensor) -> Tensor:
    """A mask at the size of the latents, of which no part is lost.

    Where it shrinks, a latent pixel has the highest value that it covers: what is full stays full,
    what is soft stays soft, and a single pixel marks its latent pixel. Where it grows it is
    interpolated, as the host does.

    Arguments:
        mask: Shape (H, W), (B, H, W) or (B, 1, H, W) with B one or that of the latents. For a
            video (T, H, W), of all videos, or (B, T, H, W), also as (B * T, H, W) where T is that
            of the latents.
        samples: Latents, shape (B, C, *S).

    Returns:
        In [0, 1], float32 on the CPU, shape (B, 1, *S).

    Raises:
        ValueError: If the mask is empty or not finite, or there is not one for each latent.
    """
    if mask.ndim < 2 or mask.numel() == 0:
        raise ValueError(
            f"The mask has the shape {tuple(mask.shape)}, so it has no pixels. Make one with a "
            "height and a width of at least one pixel."
        )
    mask = mask.detach().cpu().float()
    if not torch.isfinite(mask).all():
        raise ValueError("The mask holds NaN or infinite values. Make it anew.")
    batch, size = len(samples), samples.shape[2:]
    frames = mask.clamp(0, 1).reshape(-1, 1, *mask.shape[-2:])
    if len(size) == 3:
        frames = _clips(mask.shape, frames, batch, size[0])
    elif len(size) == 1:
        frames = frames.amax(-2)
    if len(frames) not in (1, batch):
        raise ValueError(
            f"There are {len(frames)} masks but {batch} latents. Give one mask for all, or one "
            "for each."
        )
    kept = [min(old, new) for old, new in zip(frames.shape[2:], size, strict=True)]
    pool = (adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d)[len(size) - 1]
    pooled = pool(frames, kept)
    return comfy.utils.reshape_mask(pooled, (batch, 1, *size)).clamp(0, 1).contiguous()


def _clips(shape: torch.Size, frames: Tensor, batch: int, length: int) -> Tensor:
    """Frames (F, 1, H, W) of masks of a `shape` as clips (b, 1, T, H, W)."""
    if len(shape) > 3 and shape[-3] > 1:
        clips = shape[:-3].numel()
    else:
        clips = batch if len(frames) == batch * length else 1
    return frames.unflatten(0, (clips, -1)).transpose(1, 2)
