"""Signals of a run that need no posterior: trajectory and contrast.

`trajectory` asks how long a pixel stayed undecided, `contrast` whether the prompt explains a
region better than no prompt does. Both are measured on malformed content in docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from .moments import Welford

__all__ = ["CONTRAST_LEVELS", "TrajectoryVariance", "contrast", "smooth", "trajectory_variance"]

Denoise = Callable[[Tensor, Tensor], Tensor]

CONTRAST_LEVELS = (0.25, 0.40, 0.55, 0.70)
"""Flow-matching times t of the contrast; sigma / alpha = t / (1 - t) for other models."""

LATE = 2 / 3
"""Share of the evaluations, from the end, over which the prediction's variance is taken."""


@dataclass
class TrajectoryVariance:
    """Observer: variance of the denoised prediction over the last two thirds of the run.

    Welford's running moments, so the memory is that of two latents. `map()` is (B, *S): the mean
    over channels of the variance, in squared latent units.
    """

    evaluations: int
    moments: Welford = field(default_factory=Welford)

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        if k >= self.evaluations * (1 - LATE):
            self.moments.add(denoised.float())

    def map(self) -> Tensor:
        return self.moments.variance().mean(1)


def trajectory_variance(denoised: Tensor) -> Tensor:
    """The same map (B, *S) of recorded predictions (E, B, C, *S), over all E of them."""
    return denoised.float().var(0, unbiased=len(denoised) > 1).mean(1)


def contrast(
    conditional: Denoise,
    unconditional: Denoise,
    latent: Tensor,
    renoise: Callable[[Tensor, Tensor, Tensor], Tensor],
    sigmas: Sequence[Tensor],
    generator: torch.Generator,
    radius: int = 2,
) -> Tensor:
    """How much worse the prompt explains each pixel than no prompt does: (B, *S), latent units^2.

    The final latent x0 (B, C, *S) is noised to each of `sigmas` by `renoise(sigma, noise, x0)` and
    denoised with and without the condition; the map is the sum over levels of
    |D_c - x0|^2 - |D_u - x0|^2, averaged over channels and over a window of `radius` pixels. With
    the velocity v this is sum_t t^2 (|v_c - v|^2 - |v_u - v|^2), the likelihood-ratio view of a
    diffusion classifier (Li et al. 2023). Negative where the prompt helps; HIGH is bad.
    """
    total = torch.zeros_like(latent[:, 0], dtype=torch.float32)
    for sigma in sigmas:
        noise = torch.randn(latent.shape, generator=generator, device=generator.device)
        z = renoise(sigma, noise.to(latent), latent)
        with_prompt = (conditional(z, sigma) - latent).float().square()
        without = (unconditional(z, sigma) - latent).float().square()
        total += (with_prompt - without).mean(1)
    return smooth(total, radius)


def smooth(maps: Tensor, radius: int) -> Tensor:
    """Mean over a window of `radius` pixels in the last two axes; edges average what exists."""
    if radius == 0:
        return maps
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    size = 2 * radius + 1
    averaged = functional.avg_pool2d(flat, size, 1, radius, count_include_pad=False)
    return averaged.view_as(maps)
