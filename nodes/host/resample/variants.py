"""Variants of an image: new ones where it is uncertain, or moved along its posterior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ....bayesdiff_core.mask import threshold_mask
from ....bayesdiff_core.render.viewer_payload import frames
from ....bayesdiff_core.signals import smooth
from ....bayesdiff_core.uncertainty import Uncertainty
from ..masks import latent_mask
from ..validation import check_latent
from .again import sample_again
from .candidates import Candidates, CandidateSampler
from .options import ResampleOptions, sampling_plan

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
    """Mask (F, h, w) of every map, or frame of one, where its local mean exceeds a percentile."""
    maps = frames(uncertainty.signal(signal).map)
    return threshold_mask(smooth(maps, RADIUS), percentile=percentile)


def diversify(
    model: Any,
    latent: dict[str, Any],
    uncertainty: Uncertainty,
    mask: Tensor | None,
    positive: Any,
    negative: Any,
    variety: ResampleOptions,
) -> tuple[dict[str, Any], str]:
    """`variety.candidates` variants of every image, all first ones first, and a report.

    Outside the mask (B or 1, H, W) every variant is the image itself, to the bit; None is all of
    it. With a posterior in `variety` they are moved along its tangents. Raises ValueError when the
    mask is empty.
    """
    samples = check_latent(latent)
    if mask is None:
        mask = torch.ones(1, *samples.shape[-2:])
    region = latent_mask(mask, samples)
    if variety.posterior is not None:
        variety = replace(variety, noise_mode="posterior_tangents")
    if not region.any():
        raise ValueError("The mask is empty, so there is nothing to vary.")
    way = sampling_plan(model, samples, uncertainty, variety.given)
    if way.recording is None:
        raise ValueError(
            "This UNCERTAINTY holds no recorded trajectory. Raise recording_mb in "
            "UncertainKSampler and sample again."
        )
    sampler = CandidateSampler(way, region, variety, every_candidate)
    result = sample_again(model, samples, positive, negative, sampler)
    changes = (result.unflatten(0, (variety.candidates, -1)) - samples).square()
    share = region.expand_as(samples).flatten(1).sum(1).clamp(min=1e-6)
    rms = (changes.flatten(2).sum(2) / share).sqrt()
    lines = [
        f"{variety.candidates} variants, {(region > 0).float().mean():.0%} of the picture free"
    ]
    for image in range(len(samples)):
        found = ", ".join(f"{value:.3g}" for value in rms[:, image].tolist())
        lines.append(f"image {image + 1}: changed inside by {found} (rms, latent units)")
    return {"samples": result}, "\n".join(lines)


def every_candidate(found: Candidates) -> Tensor:
    return found.latents
