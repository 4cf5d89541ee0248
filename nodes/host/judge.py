"""The signal `contrast` of any latent, also of one that was never sampled here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...bayesdiff_core.signals import CONTRAST_LEVELS, Contrast
from ...bayesdiff_core.uncertainty import Uncertainty
from .conditioning import align
from .contrast import contrast_map, contrast_signals
from .validation import check_batches, check_latent

__all__ = ["judge"]


def judge(
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
    sampler = _Judge(seed)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    # The levels come from the model; this schedule only has to have a step.
    guider.sample(torch.zeros_like(samples), samples, sampler, torch.tensor([1.0, 0.0]), seed=seed)
    before = {} if uncertainty is None else uncertainty.signals
    trajectory = before["trajectory"].map if "trajectory" in before else None
    signals = {**before, **contrast_signals(sampler.found, trajectory)}
    return Uncertainty(signals) if uncertainty is None else replace(uncertainty, signals=signals)


class _Judge(comfy.samplers.Sampler):
    """Stands where a sampler would, with the model loaded, and looks at the latent instead."""

    found: Contrast

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        assert latent_image is not None
        conds = align(model_wrap.conds, len(latent_image))
        options, bar = extra_args["model_options"], comfy.utils.ProgressBar(len(CONTRAST_LEVELS))
        self.found = contrast_map(
            model_wrap.inner_model, conds, latent_image, options, self.seed, progress=bar.update
        )
        return latent_image
