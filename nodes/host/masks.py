"""A user's mask at the size of the latents."""

from __future__ import annotations

import comfy.utils
import torch
from torch import Tensor

__all__ = ["latent_mask"]


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
