"""The signal `contrast` by the host's predictions with and without a prompt, for any latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...bayesdiff_core.signals import CONTRAST_LEVELS, Contrast, contrast
from ...bayesdiff_core.uncertainty import Uncertainty, contrast_signals
from .conditioning import Conds
from .session import Session, with_model
from .validation import check_batches, check_latent, is_recorded

__all__ = ["contrast_levels", "contrast_map", "contrast_of_latent", "has_two_sides"]

EDITED = (
    "the latent is not the one that was recorded: only its contrast is known, what the run said "
    "was left out"
)


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

    return contrast(
        sides.conditional,
        sides.unconditional,
        latent,
        model.model_sampling.noise_scaling,
        contrast_levels(model.model_sampling, latent.device),
        torch.Generator("cpu").manual_seed(seed),
        copies=copies,
    )


def contrast_of_latent(
    model: Any,
    latent: dict[str, Any],
    positive: Any,
    negative: Any,
    seed: int,
    uncertainty: Uncertainty | None = None,
) -> Uncertainty:
    """`uncertainty`, or a new one, with the contrast of the latent's images.

    Where it holds their trajectory, `artifact` is made of both.

    Raises ValueError when the conditionings do not fit the latent, or the uncertainty is that of
    other latents.
    """
    samples = check_latent(latent)
    check_batches("positive", positive, len(samples))
    check_batches("negative", negative, len(samples))
    if not positive or not negative:
        raise ValueError(
            "Contrast compares two sides: connect a positive prompt and a negative one, which may "
            "be empty text."
        )
    shape = (len(samples), *samples.shape[2:])
    if uncertainty is not None and uncertainty.signal("artifact").map.shape != shape:
        found = tuple(uncertainty.signal("artifact").map.shape)
        raise ValueError(
            f"The uncertainty has maps of {found} but the latent {shape}: connect those of the "
            "same run, or leave the uncertainty out."
        )
    bar = comfy.utils.ProgressBar(len(CONTRAST_LEVELS))

    def judge(session: Session) -> Contrast:
        return contrast_map(
            session.model, session.conds, session.latents, session.options, seed,
            progress=bar.update,
        )  # fmt: skip

    found = with_model(model, {"positive": positive, "negative": negative}, samples, judge, seed)
    if not (torch.isfinite(found.map).all() and torch.isfinite(found.error).all()):
        raise ValueError(
            "The contrast of this latent is NaN or infinite: the latent, whose values reach "
            f"{float(samples.abs().max()):.3g}, or the model's predictions for it leave the range "
            "of numbers. Look at its image, and at the precision the model runs in."
        )
    if uncertainty is None:
        return Uncertainty(contrast_signals(found, None))
    recording, settings = uncertainty.recording, uncertainty.settings
    if recording is not None and not is_recorded(model, samples, recording):
        settings = replace(settings, failures=(*settings.failures, EDITED))
        return Uncertainty(contrast_signals(found, None), settings=settings)
    before = uncertainty.signals
    trajectory = before["trajectory"].map if "trajectory" in before else None
    return replace(uncertainty, signals={**before, **contrast_signals(found, trajectory)})


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
