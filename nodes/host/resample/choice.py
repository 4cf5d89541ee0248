"""Which candidate every region takes, and what is then known of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....bayesdiff_core.recording import Recording
from ....bayesdiff_core.resample.region_choice import (
    compose,
    paint,
    pick_regions,
    region_labels,
    region_scores,
)
from ....bayesdiff_core.signals import Contrast, artifact
from ....bayesdiff_core.solver_run import tile
from ....bayesdiff_core.uncertainty import Signal, Uncertainty
from ..contrast import contrast_map, has_two_sides
from .candidates import Candidates
from .options import ResampleOptions

__all__ = ["Choice", "choose", "composed_latents", "uncertainty_of"]


@dataclass(frozen=True)
class Choice:
    """What the regions of B images took from N candidates, low scores being good.

    `scores` (N + 1, B, R) are those of the `rule`, the original last and NaN where nothing is
    known of it. `contrast` is that of all candidates and then of the original, ((N + 1) * B, *S),
    where the rule looked at it. `picked` (B, R) names a candidate, or -1 for the original. `takes`
    (B, *S) says the same for every pixel, once for each of the M batches that are returned.
    """

    rule: str
    contrast: Contrast | None
    scores: Tensor
    picked: Tensor
    takes: list[Tensor]

    @property
    def improved(self) -> bool:
        return bool((self.picked >= 0).any())

    @property
    def untouched(self) -> Tensor:
        """Where the result is the original itself (M * B, 1, *S)."""
        return torch.cat(self.takes)[:, None] < 0


def choose(found: Candidates, mask: Tensor, repair: ResampleOptions, keep: bool) -> Choice:
    """The choice by the rule; with `keep` the original stays where no candidate beats it."""
    rule = _rule(repair.rule, found)
    contrast = _contrast(found, repair.seed) if rule in ("contrast", "artifact") else None
    maps = _maps(rule, found, contrast)
    labels = region_labels(mask)
    scores = region_scores(maps, mask, labels.to(maps.device)).cpu()
    if repair.rule == "random":
        picked = torch.where(scores[0].isnan(), -1, 0)
    else:
        # An original of which nothing is known cannot stay for its score.
        original = scores[-1].nan_to_num(nan=float("inf"))
        picked = pick_regions(scores[:-1], original if keep else None)
    takes = [paint(picked, labels)]
    if repair.rule == "all":
        outside = labels.new_full(labels.shape, -1)
        takes = [outside.masked_fill(labels > 0, i) for i in range(found.copies)]
        takes += [outside] if keep else []
    return Choice(rule, contrast, scores, picked, takes)


def composed_latents(found: Candidates, choice: Choice) -> Tensor:
    """The latents (M * B, C, *S) that the choice makes of the candidates."""
    return _composed(found.latents, found.original, found.copies, choice.takes)


def uncertainty_of(
    uncertainty: Uncertainty | None,
    found: Candidates,
    choice: Choice,
    mask: Tensor,
    metadata: dict[str, Any],
) -> Uncertainty:
    """The uncertainty of the result: new where a candidate was taken, else as it was."""
    old = None if uncertainty is None else uncertainty.signals.get("trajectory")
    new = found.trajectory.cpu().float()
    signals = {}

    def signal(candidates: Tensor, original: Tensor, unit: str) -> Signal:
        return Signal(_composed(candidates, original, found.copies, choice.takes), unit)

    if old is not None or choice.contrast is None:
        # Where nothing was sampled, nothing varied.
        before = torch.zeros_like(new[: len(new) // found.copies]) if old is None else old.map
        unit = "latent variance" if old is None else old.unit
        signals["trajectory"] = signal(new, before, unit)
    if choice.contrast is not None:
        there, here = _apart(choice.contrast, len(new))
        signals["contrast"] = signal(there.map, here.map, "latent error")
        if old is not None:
            maps = artifact(there, new), artifact(here, old.map)
            signals["artifact"] = signal(*maps, "latent error")
    return Uncertainty(signals, _record(found, choice, mask), None, {**metadata, "method": None})


def _rule(rule: str, found: Candidates) -> str:
    """The signal by which candidates are compared; `artifact` stands for what there is of it."""
    if rule not in ("auto", "all", "artifact"):
        return rule
    if not has_two_sides(found.guider.conds):
        return "trajectory"
    return "contrast" if found.original_trajectory is None else "artifact"


def _contrast(found: Candidates, seed: int) -> Contrast:
    """Of all candidates, then of the original, with the same noise."""
    latents = torch.cat([found.latents, found.original])
    model, conds = found.guider.inner_model, found.guider.conds
    return contrast_map(model, conds, latents, found.options, seed, copies=found.copies + 1)


def _apart(contrast: Contrast, count: int) -> tuple[Contrast, Contrast]:
    """That of the `count` candidates and that of the original, on the CPU."""
    maps, error = contrast.map.cpu().float(), contrast.error.cpu().float()
    return Contrast(maps[:count], error[:count]), Contrast(maps[count:], error[count:])


def _maps(rule: str, found: Candidates, contrast: Contrast | None) -> Tensor:
    """What the rule looks at, (N + 1, B, *S), the original last; low is good."""
    original = found.original_trajectory
    if original is None:
        original = torch.full_like(found.trajectory[: len(found.original)], float("nan"))
    maps = torch.cat([found.trajectory, original.to(found.trajectory)])
    if contrast is not None:
        maps = artifact(contrast, maps) if rule == "artifact" else contrast.map
    return maps.unflatten(0, (found.copies + 1, -1))


def _composed(candidates: Tensor, original: Tensor, copies: int, takes: list[Tensor]) -> Tensor:
    """What is taken (M * B, *K, *S) of candidates (N * B, *K, *S) and the original (B, *K, *S)."""
    stack = candidates.to(original).unflatten(0, (copies, -1))
    return torch.cat([compose(stack, original, take) for take in takes])


def _record(found: Candidates, choice: Choice, mask: Tensor) -> Recording | None:
    """The recording as if the run had taken the chosen way from the start."""
    old, new, first = found.before, found.recording, found.first
    if old is None or new is None or len(new.states) != len(old.states) - first:
        return None
    copies, mask = found.copies, mask.cpu()
    inside = tile(mask, copies)

    def joined(before: Tensor, after: Tensor) -> Tensor:
        """Before the start as it was, then the chosen candidates inside the mask."""
        steps = []
        for recorded, candidates in zip(before[first:], after, strict=True):
            blended = candidates * inside + tile(recorded, copies) * (1 - inside)
            steps.append(_composed(blended, recorded, copies, choice.takes))
        kept = before[:first].repeat(1, len(choice.takes), *[1] * (before.ndim - 2))
        return torch.cat([kept, torch.stack(steps).to(before)])

    return Recording(
        joined(old.states, new.states),
        joined(old.denoised, new.denoised),
        old.sigmas,
        old.schedule,
        _composed(new.final, old.final, copies, choice.takes),
    )
