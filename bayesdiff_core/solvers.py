"""Reference solvers, for use without a host: each one plain function on one screen.

All are called as k-diffusion's samplers are: `model(x, sigma * ones)` returns the denoised
prediction D (B, C, *S), `sigmas` (steps + 1,) descends to 0, `noise_sampler(sigma, sigma_next)`
draws standard normal noise, `callback` gets {"i", "x", "sigma", "denoised"} at every step, and
`disable`, which would hide a progress bar, is not read. They return the final state (B, C, *S).

A state is z = alpha(sigma) x0 + sigma eps; the deterministic solvers integrate dz/dsigma =
(z - D) / sigma, which holds for alpha = 1 (variance exploding) and alpha = 1 - sigma (flow
matching) alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from .map_checks import check_number, check_whole

__all__ = [
    "SAMPLERS",
    "SamplerFunction",
    "ddim",
    "ddpm",
    "dpm_solver_2",
    "dpmpp_2m",
    "flow_sigmas",
]

NoiseSampler = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[dict[str, Any]], None] | None


class SamplerFunction(Protocol):
    """A sampler function in the form of k-diffusion."""

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        callback: Callback = None,
        disable: bool | None = None,
    ) -> Tensor: ...


def flow_sigmas(steps: int, shift: float = 1.0) -> Tensor:
    """Schedule of flow matching, uniform in t before the shift (Esser et al. 2024, eq. 23).

        sigma = s t / (1 + (s - 1) t),      t from 1 to 0

    Arguments:
        steps: Number of steps.
        shift: s; 1 leaves the times uniform, more spends more steps at high noise.

    Returns:
        Shape (steps + 1,), from 1 down to 0.
    """
    check_whole(steps, "The number of steps", 1)
    check_number(shift, "The shift", 1e-6)
    t = torch.linspace(1, 0, steps + 1)
    return shift * t / (1 + (shift - 1) * t)


def flow_alpha(sigma: Tensor) -> Tensor:
    """Signal level alpha = 1 - sigma of flow matching, any shape."""
    return 1 - sigma


def ddim(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    callback: Callback = None,
    disable: bool | None = None,
) -> Tensor:
    """DDIM with eta = 0, which is Euler's method in sigma (Song 2021; Karras 2022).

    x <- x + (x - D) / sigma_i * (sigma_(i+1) - sigma_i)
    """
    ones = x.new_ones(len(x))
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones)
        _report(callback, i, x, sigmas[i], denoised)
        x = x + to_d(x, sigmas[i], denoised) * (sigmas[i + 1] - sigmas[i])
    return x


def ddpm(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    callback: Callback = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Ancestral sampling with the exact Gaussian posterior q(z_s | z_t, x0 = D) (Ho et al. 2020).

    For flow matching, alpha(sigma) = 1 - sigma. With the variance that noise adds from s to t,
    v = t^2 - (alpha_t / alpha_s)^2 s^2, and fresh noise e,

        up = s sqrt(v) / t,      down = sqrt(s^2 - up^2),
        x <- alpha_s D + down (x - alpha_t D) / t + up e
    """
    noise_sampler = noise_sampler or (lambda _sigma, _sigma_next: torch.randn_like(x))
    ones = x.new_ones(len(x))
    for i in range(len(sigmas) - 1):
        t, s = sigmas[i], sigmas[i + 1]
        denoised = model(x, t * ones)
        _report(callback, i, x, t, denoised)
        noise_level = (t**2 - (flow_alpha(t) / flow_alpha(s)) ** 2 * s**2).clamp(min=0).sqrt()
        sigma_up = s * noise_level / t
        sigma_down = (s**2 - sigma_up**2).clamp(min=0).sqrt()
        x = flow_alpha(s) * denoised + sigma_down * (x - flow_alpha(t) * denoised) / t
        if s > 0:
            x = x + sigma_up * noise_sampler(t, s)
    return x


def dpm_solver_2(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    callback: Callback = None,
    disable: bool | None = None,
) -> Tensor:
    """DPM-Solver-2: one midpoint in log sigma a step (Lu et al. 2022, algorithm 1).

    The slope of a step is taken at sigma = sqrt(sigma_i sigma_(i+1)), reached by Euler's method;
    the last step, to 0, is Euler's. Costs two evaluations for each step but the last.
    """
    ones = x.new_ones(len(x))
    for i in range(len(sigmas) - 1):
        sigma, sigma_next = sigmas[i], sigmas[i + 1]
        denoised = model(x, sigma * ones)
        _report(callback, i, x, sigma, denoised)
        d = to_d(x, sigma, denoised)
        if sigma_next > 0:
            middle = (sigma * sigma_next).sqrt()
            x_middle = x + d * (middle - sigma)
            d = to_d(x_middle, middle, model(x_middle, middle * ones))
        x = x + d * (sigma_next - sigma)
    return x


def dpmpp_2m(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    callback: Callback = None,
    disable: bool | None = None,
) -> Tensor:
    """DPM-Solver++(2M) in log sigma (Lu et al. 2022b, algorithm 2).

        q = sigma_(i+1) / sigma_i,      x <- q x + (1 - q) (D_i + (D_i - D_(i-1)) / (2 r))

    where r is the length of the last step over that of this one, in log sigma. The first and the
    last step use D_i alone.
    """
    ones = x.new_ones(len(x))
    previous: Tensor | None = None
    for i in range(len(sigmas) - 1):
        sigma, sigma_next = sigmas[i], sigmas[i + 1]
        denoised = model(x, sigma * ones)
        _report(callback, i, x, sigma, denoised)
        extrapolated = denoised
        if previous is not None and sigma_next > 0:
            r = (sigmas[i - 1] / sigma).log() / (sigma / sigma_next).log()
            extrapolated = denoised + (denoised - previous) / (2 * r)
        ratio = sigma_next / sigma
        x = ratio * x + (1 - ratio) * extrapolated
        previous = denoised
    return x


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """Slope dz/dsigma = (z - D) / sigma of the probability flow (Karras et al. 2022, eq. 3)."""
    return (x - denoised) / sigma


def _report(
    callback: Callback,
    i: int,
    x: Tensor,
    sigma: Tensor,
    denoised: Tensor,
) -> None:
    if callback is not None:
        callback({"i": i, "x": x, "sigma": sigma, "denoised": denoised})


SAMPLERS: dict[str, SamplerFunction] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "dpm_solver_2": dpm_solver_2,
    "dpmpp_2m": dpmpp_2m,
}
