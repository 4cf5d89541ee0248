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
    """Whether there is a prompt and something to compare it with.

    Arguments:
        conds: Conditionings by side, processed or not.

    Returns:
        True where neither `positive` nor `negative` is missing or empty.
    """
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
    """Contrast of clean latents by a loaded model, see `bayesdiff_core.signals.contrast`.

    Arguments:
        model: Loaded, as the host's samplers get it.
        conds: Processed conditionings, in step with the latents.
        latent: Clean, in the space the model sees, shape (n * B, C, *S), tile-major.
        model_options: Of the run.
        seed: Decides the noise of a batch; all copies are judged with the same.
        copies: The number n.
        progress: Called with 1 after each of CONTRAST_LEVELS.

    Returns:
        Map (n * B, *S) and mean error without the prompt (n * B,), in squared latent units.

    Raises:
        ValueError: If the latents are no fractions of that shape.
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
    """The contrast of a latent's images, as an uncertainty or added to one.

    Arguments:
        model: The MODEL that judges.
        latent: LATENT of finished images, samples (B, C, *S).
        positive, negative: CONDITIONING of one prompt for all, or one for each image.
        seed: Decides the noise.
        uncertainty: Of the same images; None makes a new one.

    Returns:
        `contrast`, `artifact` where the trajectory is known, and what else `uncertainty` holds,
        unless the latent is not the recorded one any more.

    Raises:
        ValueError: If the latent is unusable, a side is missing, the conditionings or the
            uncertainty do not fit the latent, or the contrast is not finite.
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
    """Noise levels at which noise and signal stand as t to 1 - t.

    Arguments:
        model_sampling: The model's, which says what it was trained on.
        device: Of the result.

    Returns:
        For each t of CONTRAST_LEVELS a sigma (), t for flow matching and t / (1 - t) for other
        models, within sigma_min and sigma_max.
    """
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
