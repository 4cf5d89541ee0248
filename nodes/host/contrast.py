"""The signal `contrast` of the core with the host's conditional and unconditional predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import torch
from torch import Tensor

from ...bayesdiff_core.signals import CONTRAST_LEVELS, Contrast, artifact, contrast
from ...bayesdiff_core.solver_run import tile
from ...bayesdiff_core.uncertainty import Signal
from .conditioning import Conds

__all__ = ["contrast_levels", "contrast_map", "contrast_signals", "has_two_sides"]


def has_two_sides(conds: Conds) -> bool:
    """Whether there is a prompt and something to compare it with."""
    return bool(conds.get("positive")) and bool(conds.get("negative"))


def contrast_map(
    model: Any,
    conds: Conds,
    latent: Tensor,
    model_options: dict[str, Any],
    seed: int,
    copies: int = 1,
    progress: Callable[[int], Any] | None = None,
) -> Contrast:
    """Contrast, map (n * B, *S), of clean latents (n * B, C, *S) in the space the model sees.

    Needs the loaded model and processed conditionings, as they are within a sampler. All copies
    are judged with the same noise. `progress(1)` is called after each of CONTRAST_LEVELS.
    """
    sides = _Sides(model, conds, model_options, progress)
    batch = len(latent) // copies

    def renoise(sigma: Tensor, noise: Tensor, clean: Tensor) -> Tensor:
        return model.model_sampling.noise_scaling(sigma, tile(noise[:batch], copies), clean)

    levels = contrast_levels(model.model_sampling, latent.device)
    generator = torch.Generator("cpu").manual_seed(seed)
    return contrast(sides.conditional, sides.unconditional, latent, renoise, levels, generator)


def contrast_signals(found: Contrast, trajectory: Tensor | None) -> dict[str, Signal]:
    """The signals that a contrast gives, on the CPU: itself, and `artifact` with a trajectory
    (B, *S) of the same latents."""
    found = Contrast(found.map.cpu().float(), found.error.cpu().float())
    signals = {"contrast": Signal(found.map, "latent error")}
    if trajectory is not None:
        signals["artifact"] = Signal(artifact(found, trajectory), "latent error")
    return signals


def contrast_levels(model_sampling: Any, device: torch.device) -> dict[float, Tensor]:
    """Sigma at which noise to signal are t : 1 - t, within what the model was trained on."""
    flow = isinstance(model_sampling, comfy.model_sampling.CONST)
    low, high = float(model_sampling.sigma_min), float(model_sampling.sigma_max)

    def sigma(t: float) -> Tensor:
        return torch.tensor(min(max(t if flow else t / (1 - t), low), high), device=device)

    return {t: sigma(t) for t in CONTRAST_LEVELS}


@dataclass
class _Sides:
    """Both predictions at a state, made in one call and handed out one after the other."""

    model: Any
    conds: Conds
    model_options: dict[str, Any]
    progress: Callable[[int], Any] | None = None
    _unconditional: Tensor | None = None

    def conditional(self, z: Tensor, sigma: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        sides = [self.conds["positive"], self.conds["negative"]]
        with_prompt, self._unconditional = comfy.samplers.calc_cond_batch(
            self.model, sides, z, sigma * z.new_ones(len(z)), self.model_options
        )
        return with_prompt

    def unconditional(self, _z: Tensor, _sigma: Tensor) -> Tensor:
        """Of the state that `conditional` has just seen."""
        assert self._unconditional is not None
        if self.progress is not None:
            self.progress(1)
        return self._unconditional
