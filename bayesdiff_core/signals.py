"""Signals of a run that need no posterior: trajectory, contrast, and both as one.

`trajectory` asks how long a pixel stayed undecided, `contrast` whether the prompt explains a
region better than no prompt does, `artifact` takes both together. All are measured on malformed
content in docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from .map_checks import as_float, check_number, check_shape, check_whole
from .running_moments import RunningMoments
from .tiling import tile

__all__ = [
    "CONTRAST_LEVELS",
    "SHORTEST",
    "Contrast",
    "TrajectoryVariance",
    "artifact",
    "contrast",
    "late_evaluations",
    "smooth",
    "trajectory_variance",
]

Denoise = Callable[[Tensor, Tensor], Tensor]

CONTRAST_LEVELS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85)
"""Flow-matching times t of the contrast; sigma / alpha = t / (1 - t) for other models."""

SHORTEST = 3
"""Evaluations that a run needs before its trajectory can vary; of a shorter one it is zero."""


def late_evaluations(evaluations: int) -> range:
    """The last two thirds of a run of E evaluations, over which the trajectory is taken.

    The first third decides little but where things are; it is left out, rounded to whole
    evaluations. One and two evaluations have one late one, and so no variance.

    Raises ValueError where E is no whole number from 0.
    """
    check_whole(evaluations, "The number of evaluations")
    return range((evaluations + 1) // 3, evaluations)


@dataclass
class TrajectoryVariance:
    """Observer: variance of the denoised prediction over the last two thirds of the run.

    Welford's running moments, so the memory is that of two latents. Where nobody knows beforehand
    how many evaluations a run has, it keeps all predictions on the CPU. `map()` is (B, *S): the
    mean over channels of the variance, in squared latent units.
    """

    evaluations: int | None
    moments: RunningMoments = field(default_factory=RunningMoments)
    _kept: list[Tensor] = field(default_factory=list)

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        mean = self.moments.mean
        check_shape(denoised, "The prediction", *("B", "C", "*S") if mean is None else mean.shape)
        if self.evaluations is None:
            self._kept.append(denoised.to("cpu", torch.float32, copy=True))
        elif k in late_evaluations(self.evaluations):
            self.moments.add(denoised.float())

    def map(self) -> Tensor:
        for k in late_evaluations(len(self._kept)) if self._kept else ():
            self.moments.add(self._kept[k])
        self._kept.clear()
        return self.moments.variance().mean(1)


def trajectory_variance(denoised: Tensor) -> Tensor:
    """The same map (B, *S) of recorded predictions (E, B, C, *S), over all E of them.

    Raises ValueError where the shape is another.
    """
    check_shape(denoised, "The recorded predictions", "E", "B", "C", "*S")
    return denoised.float().var(0, unbiased=len(denoised) > 1).mean(1)


@dataclass(frozen=True)
class Contrast:
    """The contrast `map` (B, *S), and the mean `error` (B,) without the prompt, in its unit."""

    map: Tensor
    error: Tensor


def contrast(
    conditional: Denoise,
    unconditional: Denoise,
    latent: Tensor,
    renoise: Callable[[Tensor, Tensor, Tensor], Tensor],
    levels: Mapping[float, Tensor],
    generator: torch.Generator,
    radius: int = 1,
    copies: int = 1,
) -> Contrast:
    """How much worse the prompt explains each pixel than no prompt does.

    The final latent x0 is noised to each level t and denoised with and without the condition; the
    map is the mean over levels of

        (|D_c - x0|^2 - |D_u - x0|^2) / t,

    averaged over channels and over a window. With the velocity v this is t (|v_c - v|^2 -
    |v_u - v|^2), the likelihood-ratio view of a diffusion classifier (Li et al. 2023, "Your
    diffusion model is secretly a zero-shot classifier"). Negative where the prompt helps; HIGH is
    bad.

    Arguments:
        conditional: D_c at a state (n * B, C, *S) and a sigma (); asked first at every level.
        unconditional: D_u at the same state.
        latent: Final latents x0 (n * B, C, *S), n tile-major copies of a batch.
        renoise: (sigma, noise, x0) to the noised state.
        levels: Noise level sigma () of every time t.
        generator: Draws the noise of a batch; all copies are judged with the same.
        radius: Half the side of the window, in latent pixels.
        copies: The number n.

    Returns:
        Map (n * B, *S) and mean error without the prompt (n * B,), in squared latent units.

    Raises:
        ValueError: If a shape does not fit, or there is no level, or one of time 0.
    """
    check_shape(latent, "The latent", "B", "C", "*S")
    check_whole(copies, "The number of copies", 1)
    check_shape(latent, "The latent", len(latent) // copies * copies, *latent.shape[1:])
    if not latent.is_floating_point():
        raise ValueError(f"The latent must hold fractions, not {latent.dtype}; use .float().")
    check_whole(radius, "The radius of the window")
    if not levels:
        raise ValueError("The contrast needs at least one noise level, and none was given.")
    for t in levels:
        check_number(t, "The time of a noise level", 1e-6, 1.0)
    shape = (len(latent) // copies, *latent.shape[1:])
    total = torch.zeros_like(latent[:, 0], dtype=torch.float32)
    error = torch.zeros(len(latent), device=latent.device)
    for t, sigma in levels.items():
        noise = torch.randn(shape, generator=generator, device=generator.device)
        z = renoise(sigma, tile(noise.to(latent), copies), latent)
        with_prompt = _error(conditional(z, sigma), latent)
        without = _error(unconditional(z, sigma), latent)
        total += (with_prompt - without).mean(1) / t
        error += without.flatten(1).mean(1) / t
    return Contrast(smooth(total / len(levels), radius), error / len(levels))


def _error(denoised: Tensor, latent: Tensor) -> Tensor:
    check_shape(denoised, "The prediction", *latent.shape)
    return (denoised.to(latent) - latent).float().square()


def artifact(contrast: Contrast, trajectory: Tensor) -> Tensor:
    """What is likely malformed (B, *S): the contrast, and what stayed undecided.

    The trajectory's variance (B, *S) comes in as its geometric mean with the image's error without
    the prompt, which has the contrast's unit and grows with its scale. Together they find more
    than each of them on every model of docs/evidence.md.

    Raises ValueError where the shapes differ. NaN, for what is not known, stays NaN.
    """
    check_shape(trajectory, "The trajectory's variance", "B", "*S")
    check_shape(contrast.map, "The contrast", *trajectory.shape)
    check_shape(contrast.error, "The error without the prompt", len(trajectory))
    scale = contrast.error.view(-1, *[1] * (trajectory.ndim - 1)).to(trajectory)
    return contrast.map.to(trajectory) + (trajectory * scale).clamp(min=0.0).sqrt()


def smooth(maps: Tensor, radius: int) -> Tensor:
    """Mean over a window of `radius` pixels in the last two axes; edges average what exists.

    Raises ValueError where the shape is not (B, *S) or the radius no whole number from 0.
    """
    check_shape(maps, "The map", "B", "*S")
    check_whole(radius, "The radius of the window")
    if radius == 0:
        return maps
    # With one axis of space the one before it is the batch's.
    flat = as_float(maps).reshape(
        -1, 1, *(maps.shape[-2:] if maps.ndim > 2 else (1, maps.shape[-1]))
    )
    size = 2 * radius + 1
    averaged = functional.avg_pool2d(flat, size, 1, radius, count_include_pad=False)
    return averaged.reshape(maps.shape)
