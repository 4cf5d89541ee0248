"""Sampling with uncertainty: what the host's sampling nodes do, with our sampler in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...bayesdiff_core.sample import UncertaintyOptions
from ...bayesdiff_core.uncertainty import Uncertainty
from .uncertain_run import SAMPLERS, UncertainRun
from .validation import check_batches, check_latent

__all__ = [
    "SAMPLERS",
    "SCHEDULERS",
    "Schedule",
    "sample_custom",
    "sample_uncertain",
]

SCHEDULERS: list[str] = comfy.samplers.KSampler.SCHEDULERS

Latent = dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """Sampler and noise levels as KSampler and KSamplerAdvanced take them.

    Attributes:
        sampler_name, scheduler: The host's names.
        steps: Of the whole schedule.
        denoise: Share of it that is run, in [0, 1].
        start, end: Steps between which the run takes place; None is the whole.
        leftover_noise: Whether the run ends at the noise level of `end` in place of 0.
    """

    sampler_name: str
    scheduler: str
    steps: int
    denoise: float = 1.0
    start: int | None = None
    end: int | None = None
    leftover_noise: bool = False

    def sigmas(self, model: Any) -> Tensor:
        """The noise levels of the run.

        Arguments:
            model: The MODEL.

        Returns:
            Falling, shape (steps to run + 1,).

        Raises:
            ValueError: If nothing would be sampled.
        """
        sigmas = comfy.samplers.KSampler(
            model, self.steps, model.load_device, self.sampler_name, self.scheduler,
            self.denoise, model.model_options,
        ).sigmas  # fmt: skip
        if len(sigmas) < 2:
            raise ValueError("With denoise 0 nothing is sampled; raise it above 0.")
        if self.end is not None and self.end < len(sigmas) - 1:
            sigmas = sigmas[: self.end + 1]
            if not self.leftover_noise:
                sigmas[-1] = 0
        if self.start is not None and self.start >= len(sigmas) - 1:
            raise ValueError(
                f"Step {self.start} is not before the last one, {len(sigmas) - 1}, so nothing is "
                "sampled. Start earlier or end later."
            )
        return sigmas[self.start or 0 :]


def sample_uncertain(
    model: Any,
    latent: Latent,
    positive: Any,
    negative: Any,
    schedule: Schedule,
    options: UncertaintyOptions,
    *,
    seed: int,
    cfg: float,
    add_noise: bool = True,
) -> tuple[Latent, Uncertainty]:
    """What KSampler or KSamplerAdvanced return for the same inputs, to the bit, and more.

    Arguments:
        model: The MODEL.
        latent: LATENT to denoise, samples (B, C, *S).
        positive, negative: CONDITIONING of one prompt for all latents, or one for each.
        schedule: Sampler and noise levels.
        options: What to compute besides the latent.
        seed: Decides the noise.
        cfg: Guidance scale.
        add_noise: Whether the latent is noised before; KSampler always does.

    Returns:
        LATENT with the samples (B, C, *S), and their uncertainty. A method that takes part in the
        run, such as bayesdiff, changes the samples by definition.

    Raises:
        ValueError: If the latent is unusable, a batch of prompts does not fit it, nothing would be
            sampled, or the uncertainty asked for cannot be had.
    """
    latent = _fitted(model, latent)
    samples = latent["samples"]
    check_batches("positive", positive, len(samples))
    check_batches("negative", negative, len(samples))
    noise = torch.zeros_like(samples, device="cpu")
    if add_noise:
        noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    run = UncertainRun(
        comfy.samplers.sampler_object(schedule.sampler_name), options, schedule.sampler_name
    )
    callback = latent_preview.prepare_callback(model, schedule.steps)
    result = _run(run, guider, noise, samples, schedule.sigmas(model), latent, callback, seed)
    uncertainty = run.uncertainty
    uncertainty.settings = replace(
        uncertainty.settings,
        scheduler=schedule.scheduler,
        steps=schedule.steps,
        denoise=schedule.denoise,
        cfg=cfg,
        seed=seed,
    )
    return {**latent, "samples": result}, uncertainty


def sample_custom(
    noise: Any,
    guider: Any,
    sampler: Any,
    sigmas: Tensor,
    latent: Latent,
    options: UncertaintyOptions,
) -> tuple[Latent, Latent, Uncertainty]:
    """What SamplerCustomAdvanced returns for the same inputs, to the bit, and more.

    Arguments:
        noise: NOISE.
        guider: GUIDER.
        sampler: SAMPLER that works step by step.
        sigmas: Noise levels, shape (steps + 1,).
        latent: LATENT to denoise, samples (B, C, *S).
        options: What to compute besides the latent.

    Returns:
        LATENT with the samples (B, C, *S); LATENT with the last denoised prediction, the same
        where no step was taken; and their uncertainty. A method that takes part in the run, such
        as bayesdiff, changes the samples by definition.

    Raises:
        ValueError: If latent or sampler are unusable, or the uncertainty asked for cannot be had.
    """
    model = guider.model_patcher
    latent = _fitted(model, latent)
    samples = latent["samples"]
    run = UncertainRun(sampler, options)
    last: dict[str, Tensor] = {}
    callback = latent_preview.prepare_callback(model, max(len(sigmas) - 1, 0), last)
    result = _run(
        run, guider, noise.generate_noise(latent), samples, sigmas, latent, callback, noise.seed
    )
    uncertainty = run.uncertainty
    uncertainty.settings = replace(
        uncertainty.settings,
        guider=type(guider).__name__,
        steps=max(len(sigmas) - 1, 0),
        cfg=getattr(guider, "cfg", None),
        seed=noise.seed,
    )
    out = {**latent, "samples": result}
    denoised = out
    if "x0" in last:
        denoised = {**latent, "samples": model.model.process_latent_out(last["x0"].cpu())}
    return out, denoised, uncertainty


def _fitted(model: Any, latent: Latent) -> Latent:
    """`latent`, brought to the model's channels and scale where it is empty.

    An empty latent may say for which scale it was made. Newer hosts take that as an argument of
    the same name; it no longer holds for what is sampled.
    """
    samples = check_latent(latent)
    fit = comfy.sample.fix_empty_latent_channels
    scales = {name: latent[name] for name in signature(fit).parameters if name in latent}
    kept = {name: value for name, value in latent.items() if name not in scales}
    return {**kept, "samples": fit(model, samples, **scales)}


def _run(
    run: UncertainRun,
    guider: Any,
    noise: Tensor,
    samples: Tensor,
    sigmas: Tensor,
    latent: Latent,
    callback: Any,
    seed: int,
) -> Tensor:
    result = run.sample(
        guider,
        noise,
        samples,
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return result.to(comfy.model_management.intermediate_device())
