"""Intercepts the noise draws and the step-size decisions of ComfyUI's samplers.

Samplers take noise from two names of one module, or from `torch.randn_like` where they churn, and
an adaptive one asks a controller whether a step was good enough. Within `intercepted` these names
lead here, and only there; draws and decisions themselves are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from comfy.k_diffusion import sampling
from torch import Tensor

__all__ = ["Decide", "Decision", "Draw", "intercepted", "own_decision"]

Draw = Callable[[Callable[[], Tensor]], Tensor]
"""Given what draws the sampler's own noise, the noise that the sampler gets."""


class Decision(NamedTuple):
    """What a controller of the step size says.

    Attributes:
        accepted: Whether the step was good enough.
        length: Of the next step, in the sampler's own measure of time.
    """

    accepted: bool
    length: Any


Decide = Callable[[Callable[[], Decision]], Decision]
"""Given what makes the controller's own decision, the one that the sampler gets."""

NAMES = ("default_noise_sampler", "BrownianTreeNoiseSampler", "PIDStepSizeController", "torch")


def own_decision(own: Callable[[], Decision]) -> Decision:
    """Leaves a decision to the controller.

    Arguments:
        own: Makes the controller's own decision.

    Returns:
        That decision.
    """
    return own()


@contextmanager
def intercepted(
    draw: Draw, options: dict[str, Any], decide: Decide = own_decision
) -> Iterator[dict[str, Any]]:
    """Within the context, a sampler's draws and decisions lead through functions of the caller.

    Arguments:
        draw: Gives the sampler its noise, given what draws its own.
        options: The sampler's keyword arguments, perhaps with a `noise_sampler`.
        decide: Gives an adaptive sampler its decisions, given what makes its own.

    Yields:
        The options to call the sampler with.
    """
    originals = {name: getattr(sampling, name) for name in NAMES}
    if options.get("noise_sampler") is not None:
        given = options["noise_sampler"]
        options = {**options, "noise_sampler": _led(lambda: given, draw)}
    try:
        for name in NAMES[:2]:
            setattr(sampling, name, _noise_source(originals[name], draw))
        sampling.PIDStepSizeController = _controller(sampling.PIDStepSizeController, decide)
        sampling.torch = _Torch(draw)
        yield options
    finally:
        for name, original in originals.items():
            setattr(sampling, name, original)


class _Torch:
    """The module torch, with the draws of `randn_like` led elsewhere."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def randn_like(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._draw(lambda: torch.randn_like(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _noise_source(make: Callable[..., Any], draw: Draw) -> Callable[..., Any]:
    return lambda *args, **kwargs: _led(lambda: make(*args, **kwargs), draw)


def _led(make: Callable[[], Any], draw: Draw) -> Callable[[Any, Any], Tensor]:
    """A noise sampler whose own source is made when it is first needed: a tree is costly."""
    made: list[Any] = []

    def own(sigma: Any, sigma_next: Any) -> Tensor:
        if not made:
            made.append(make())
        return made[0](sigma, sigma_next)

    return lambda sigma, sigma_next: draw(lambda: own(sigma, sigma_next))


def _controller(base: type, decide: Decide) -> type:
    class Controller(base):
        def propose_step(self, error: Any) -> bool:
            def own() -> Decision:
                accepted = super(Controller, self).propose_step(error)
                return Decision(accepted, self.h)

            accepted, self.h = decide(own)
            return accepted

    return Controller
