"""Guided sampling of a bundled model with Euler's method, for training and evaluation."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from .bundle import Network

__all__ = ["guided_velocity", "sample"]


def guided_velocity(
    model: Network, x: Tensor, t: Tensor, y: Tensor, guidance_scale: float
) -> Tensor:
    """v_u + s (v_c - v_u), shape of ``x``; the unconditional call is left out at s = 1."""
    if guidance_scale == 1:
        return model(x, t, y)
    null = torch.full_like(y, model.config.null_label)
    both = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null]))
    conditional, unconditional = both.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


@torch.no_grad()
def sample(
    model: Network,
    y: Tensor,
    guidance_scale: float = 1.0,
    steps: int = 30,
    seed: int = 0,
    batch: int = 64,
) -> Tensor:
    """Images or latents (B, C, H, W) for the labels ``y`` (B, n_labels), on the model's schedule.

    Not clamped: the values show whether sampling stayed inside [-1, 1].
    """
    noise = torch.randn(
        len(y), *model.config.sample_shape, generator=torch.Generator().manual_seed(seed)
    )
    times = schedule(steps, model.config.shift).tolist()
    images = []
    for x, labels in zip(noise.split(batch), y.split(batch), strict=True):
        for t, t_next in pairwise(times):
            v = guided_velocity(model, x, torch.full((len(x),), t), labels, guidance_scale)
            x = x + (t_next - t) * v
        images.append(x)
    return torch.cat(images)


def schedule(steps: int, shift: float) -> Tensor:
    """Times (steps + 1,) from 1 to 0; a shift above 1 dwells on the noisy ones."""
    t = torch.linspace(1, 0, steps + 1)
    return shift * t / (1 + (shift - 1) * t)
