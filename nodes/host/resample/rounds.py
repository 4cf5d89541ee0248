"""Sampling the masked regions of a latent again, round by round, and keeping what is best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ....bayesdiff_core.solver_run import tile
from ....bayesdiff_core.uncertainty import Uncertainty
from ...batches import not_connected
from ..masks import latent_mask
from ..validation import check_latent
from .again import progress_of, sample_again
from .candidates import Candidates, CandidateSampler
from .choice import Choice, choose, composed_latents, uncertainty_of
from .options import ResampleOptions, SamplingPlan, sampling_plan
from .report import repair_report

__all__ = ["resample"]

APPROXIMATE = (
    "no recorded run was replayed: the surroundings were kept only approximately while sampling; "
    "in the result they are the input, to the bit"
)

UNRECORDED = "the recording did not fit into its budget, so there was no further round"


def resample(
    model: Any,
    latent: dict[str, Any],
    uncertainty: Uncertainty | None,
    mask: Tensor,
    positive: Any,
    negative: Any,
    repair: ResampleOptions,
) -> tuple[dict[str, Any], Any, str]:
    """The latent with the masked regions sampled again, its uncertainty, and a report.

    Outside the mask (B or 1, H, W), whatever its size, the latent stays the same to the bit, and
    so does every region that keeps the original. With the rule "all" the latent holds every
    candidate, tile-major. Raises ValueError, in words, before the model runs.
    """
    samples = check_latent(latent)
    region = latent_mask(mask, samples)
    if not region.any():
        unchanged = not_connected("uncertainty") if uncertainty is None else uncertainty
        return latent, unchanged, "The mask is empty: the latent is returned as it came."
    repair.check(positive, negative)
    way = sampling_plan(model, samples, uncertainty, repair.given)
    result, found, rounds = samples, uncertainty, []
    turns = 1 if repair.rule in ("all", "random") else repair.rounds
    notes: list[str] = []
    for turn in range(turns):
        one = _Round(way, region, repair, turn, found, rounds[-1] if rounds else None)
        callback = progress_of(model, one.sampler, turn, turns)
        sampled = sample_again(model, result, positive, negative, one.sampler, callback)
        untouched = one.choice.untouched.to(sampled.device).expand_as(sampled)
        copies = len(sampled) // len(result)
        result = torch.where(untouched, tile(result, copies), sampled)
        found, way = one.uncertainty, one.next_way
        rounds.append(one.choice)
        if not one.sampler.replayed and not notes:
            notes = [APPROXIMATE]
        if not one.choice.improved:
            break
        if repair.moves_by_posterior and way.recording is None and turn + 1 < turns:
            notes.append(UNRECORDED)
            break
    change = (result - tile(samples, len(result) // len(samples))).float()
    report = repair_report(rounds, region.cpu(), mask.shape[-2:], change.cpu(), repair, notes)
    history = found.metadata.get("resampled", ())
    found.metadata["resampled"] = [*history, report]
    if len(result) != len(samples):
        return {"samples": result}, found, report
    return {**latent, "samples": result}, found, report


class _Round:
    """One turn of the candidates, from what is best so far."""

    choice: Choice
    uncertainty: Uncertainty

    def __init__(
        self,
        way: SamplingPlan,
        mask: Tensor,
        repair: ResampleOptions,
        turn: int,
        before: Uncertainty | None,
        last: Choice | None,
    ) -> None:
        self.way = way
        self.mask = mask
        self.repair = repair
        self.last = last
        self.keep = repair.keep_original or turn > 0
        self.before = before
        self.sampler = CandidateSampler(way, mask, repair, self._settle, turn)

    def _settle(self, found: Candidates) -> Tensor:
        compared = self.last is not None and self.last.rule == "trajectory"
        if compared and found.original_trajectory is None:
            # Without a recording the last round's own map says how what it took was decided.
            known = self.before.signal("trajectory").map
            found = replace(found, original_trajectory=known)
        self.choice = choose(found, self.mask, self.repair, self.keep)
        recorded = {} if self.before is None else self.before.metadata
        metadata = {**self.way.metadata, **recorded}
        self.uncertainty = uncertainty_of(self.before, found, self.choice, self.mask, metadata)
        return composed_latents(found, self.choice)

    @property
    def next_way(self) -> SamplingPlan:
        """The same from the result, and from its recording where this round replayed one."""
        return replace(self.way, recording=self.uncertainty.recording)
