"""Variants of an image: new ones where it is uncertain, or moved along its posterior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..bayesdiff_core.mask import threshold_mask
from ..bayesdiff_core.render.viewer_payload import frames
from ..bayesdiff_core.resample.candidates import Candidates
from ..bayesdiff_core.signals import smooth
from ..bayesdiff_core.tiling import tile
from ..bayesdiff_core.uncertainty import Uncertainty
from .host.resample.candidates import CandidateSampler, Settled
from .host.resample.plan import ResampleOptions, plan_resampling
from .host.resample.rounds import EDITED, run_candidates
from .host.validation import check_latent, latent_mask

__all__ = ["ALONG", "diversify", "uncertain_part"]

ALONG = {
    "regions": "sampled anew where the signal is high, or inside the mask",
    "posterior": (
        "moved along the posterior's tangents, inside the mask or everywhere; needs a LAPLACE, "
        "and differs little"
    ),
}

RADIUS = 2
"""Latent pixels over which a signal is averaged: single pixels cannot change on their own."""


def uncertain_part(uncertainty: Uncertainty, signal: str, percentile: float) -> Tensor:
    """Where the local mean of a map, or of a frame of one, exceeds a percentile.

    Arguments:
        uncertainty: Of B samples.
        signal: Whose map.
        percentile: Of the pixels of the averaged map or frame, in [0, 100].

    Returns:
        Mask, 0 or 1, shape (B, h, w), of videos (B, T, h, w).

    Raises:
        ValueError: If the run did not compute that signal, or its map is not finite.
    """
    maps = uncertainty.signal(signal).map
    bare = threshold_mask(smooth(frames(maps), RADIUS), percentile=percentile)
    return bare.reshape(len(maps), -1, *bare.shape[-2:]) if maps.ndim > 3 else bare


def diversify(
    model: Any,
    latent: dict[str, Any],
    uncertainty: Uncertainty,
    mask: Tensor | None,
    positive: Any,
    negative: Any,
    options: ResampleOptions,
) -> tuple[dict[str, Any], str]:
    """Make `options.candidates` variants of every image.

    Arguments:
        model: The MODEL.
        latent: LATENT of the run.
        uncertainty: Of the same run, recorded.
        mask: Where they may differ, shape (B or 1, H, W), in any size; None is everywhere.
        positive: CONDITIONING.
        negative: CONDITIONING.
        options: How; with a posterior the image is moved along its tangents.

    Returns:
        LATENT of all first variants, then all second ones, the image itself to the bit outside the
        mask; and a report.

    Raises:
        ValueError: If the mask is empty or nothing was recorded.
    """
    samples = check_latent(latent)
    if mask is None:
        mask = torch.ones(1, *samples.shape[-2:])
    region = latent_mask(mask, samples)
    if options.posterior is not None:
        options = replace(options, noise_mode="posterior_tangents")
    if not region.any():
        raise ValueError("The mask is empty, so there is nothing to vary.")
    if uncertainty.recording is None and uncertainty.settings.sampler_name is None:
        raise ValueError(
            "This UNCERTAINTY holds no recorded trajectory, for no run made it. Sample the image "
            "with UncertainKSampler, or make variants of it with MaskedResample and the rule all."
        )
    plan = plan_resampling(model, samples, uncertainty, options.overrides)
    if plan.recording is None and not plan.edited:
        raise ValueError(
            "This UNCERTAINTY holds no recorded trajectory. Raise recording_mb in "
            "UncertainKSampler and sample again."
        )

    def every_candidate(found: Candidates, _contrast_of: Any) -> Settled:
        return Settled(found.latents, tile(region == 0, found.copies))

    sampler = CandidateSampler(plan, region, options, every_candidate)
    result = run_candidates(model, samples, positive, negative, sampler)
    notes = [EDITED] if plan.edited else []
    return {"samples": result}, "\n".join([*notes, *_report(result, samples, region)])


def _report(result: Tensor, samples: Tensor, region: Tensor) -> list[str]:
    """How much is free to change, and how much every variant of every image did."""
    changes = (result.unflatten(0, (-1, len(samples))) - samples).square()
    share = region.expand_as(samples).flatten(1).sum(1).clamp(min=1e-6)
    rms = (changes.flatten(2).sum(2) / share).sqrt()
    lines = [f"{len(rms)} variants, {(region > 0).float().mean():.0%} of the picture free"]
    for image in range(len(samples)):
        found = ", ".join(f"{value:.3g}" for value in rms[:, image].tolist())
        lines.append(f"image {image + 1}: changed inside by {found} (rms, latent units)")
    return lines
