"""Every noise draw of the host's samplers, in one place.

The samplers take noise from two names of one module, or from `torch.randn_like` where they churn.
Within `redirected` these names lead here, and only there; the draws themselves are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy.k_diffusion import sampling
from torch import Tensor

__all__ = ["Draw", "redirected"]

Draw = Callable[[Callable[[], Tensor]], Tensor]
"""Given what draws the sampler's own noise, the noise that the sampler gets."""

NAMES = ("default_noise_sampler", "BrownianTreeNoiseSampler", "torch")


class _Torch:
    """The module torch, with the draws of `randn_like` led elsewhere."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def randn_like(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._draw(lambda: torch.randn_like(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def redirected(draw: Draw, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Lead all draws of a sampler run through `draw`; yields the sampler's options for that."""
    originals = {name: getattr(sampling, name) for name in NAMES}

    def leads(make: Callable[..., Any]) -> Callable[..., Any]:
        def noise_sampler(*args: Any, **kwargs: Any) -> Callable[[Any, Any], Tensor]:
            # A Brownian tree is costly; replays and traces never ask it for anything.
            made: list[Any] = []

            def sample(sigma: Any, sigma_next: Any) -> Tensor:
                if not made:
                    made.append(make(*args, **kwargs))
                return made[0](sigma, sigma_next)

            return lambda sigma, sigma_next: draw(lambda: sample(sigma, sigma_next))

        return noise_sampler

    if options.get("noise_sampler") is not None:
        own = options["noise_sampler"]
        options = {**options, "noise_sampler": lambda s, t: draw(lambda: own(s, t))}
    try:
        sampling.default_noise_sampler = leads(originals["default_noise_sampler"])
        sampling.BrownianTreeNoiseSampler = leads(originals["BrownianTreeNoiseSampler"])
        sampling.torch = _Torch(draw)
        yield options
    finally:
        for name, original in originals.items():
            setattr(sampling, name, original)
