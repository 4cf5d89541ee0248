"""Sampling the masked regions of a latent again, round by round, and keeping what is best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ....bayesdiff_core.resample.candidates import Candidates
from ....bayesdiff_core.resample.region_choice import (
    Choice,
    choose_regions,
    composed_latents,
    uncertainty_of,
)
from ....bayesdiff_core.resample.regions import region_labels
from ....bayesdiff_core.tiling import tile
from ....bayesdiff_core.uncertainty import RunSettings, Uncertainty
from ..memory import is_out_of_memory
from ..validation import check_batches
from .candidates import CandidateSampler, ContrastOf, Settled
from .plan import ResampleOptions, SamplingPlan, plan_resampling

__all__ = ["APPROXIMATE", "EDITED", "UNRECORDED", "Resampled", "resample", "run_candidates"]

APPROXIMATE = (
    "no recorded run was replayed: the surroundings were kept only approximately while sampling; "
    "in the result they are the input, to the bit"
)

EDITED = (
    "the latent is not the one that was recorded: it was repaired from what it is now, and what "
    "is known of the recorded run was left out"
)

UNRECORDED = "the recording did not fit into its budget, so there was no further round"


@dataclass(frozen=True)
class Resampled:
    """What came of resampling.

    Attributes:
        samples: Latents, shape (M * B, C, *S).
        uncertainty: Of these.
        rounds: What the regions took in every round.
        notes: Sentences about how it went.
    """

    samples: Tensor
    uncertainty: Uncertainty
    rounds: list[Choice]
    notes: list[str]


def resample(
    model: Any,
    samples: Tensor,
    uncertainty: Uncertainty | None,
    mask: Tensor,
    positive: Any,
    negative: Any,
    options: ResampleOptions,
) -> Resampled:
    """Sample the masked regions of latents again.

    Arguments:
        model: The MODEL.
        samples: Latents, shape (B, C, *S).
        uncertainty: Of the run that made them, where there was one.
        mask: Where to sample again, in [0, 1] at the size of the latents, shape (B, 1, *S).
        positive, negative: CONDITIONING of one prompt for all latents, or one for each.
        options: What the user asks for.

    Returns:
        Latents that are the input to the bit outside the mask, and in every region that keeps the
        original; with a rule that returns every candidate all of them, tile-major.

    Raises:
        ValueError: In words, where something that is asked for cannot be done.
        torch.cuda.OutOfMemoryError: If the memory does not hold one candidate of the batch.
    """
    options.check(positive, negative)
    plan = plan_resampling(model, samples, uncertainty, options.overrides)
    rule, labels = options.chosen_rule, region_labels(mask)
    result, found, rounds = samples, uncertainty, []
    if plan.edited:
        found = Uncertainty({}, settings=uncertainty.settings)
    turns = 1 if rule.one_round else options.rounds
    notes: list[str] = []
    for turn in range(turns):
        one = _Round(plan, mask, labels, options, turn, found, rounds[-1] if rounds else None)
        callback = progress_of(model, one.sampler, turn, turns)
        result = run_candidates(model, result, positive, negative, one.sampler, callback)
        found, plan = one.uncertainty, one.next_plan
        rounds.append(one.choice)
        if not one.sampler.replayed and not notes:
            notes = [EDITED, APPROXIMATE] if plan.edited else [APPROXIMATE]
        if not one.choice.improved:
            break
        if options.mode.needs_posterior and plan.recording is None and turn + 1 < turns:
            notes.append(UNRECORDED)
            break
    return Resampled(result, found, rounds, notes)


def run_candidates(
    model: Any,
    samples: Tensor,
    positive: Any,
    negative: Any,
    sampler: CandidateSampler,
    callback: Callable[..., None] | None = None,
) -> Tensor:
    """Run a sampler of candidates on latents, with preview and progress bar.

    This is the one place where what stays untouched is put back, to the bit.

    Arguments:
        model: The MODEL.
        samples: Latents as nodes exchange them, shape (B, C, *S).
        positive, negative: CONDITIONING of one prompt for all latents, or one for each.
        sampler: What it knows of the result is there afterwards.
        callback: The host's, for every step; None shows the preview.

    Returns:
        Latents as nodes exchange them, shape (M * B, C, *S).

    Raises:
        ValueError: If a batch of prompts does not fit, or the sampler refuses the run.
        torch.cuda.OutOfMemoryError: If the memory does not hold one candidate of the batch.
    """
    check_batches("positive", positive, len(samples))
    check_batches("negative", negative, len(samples))
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(sampler.plan.cfg)
    try:
        result = guider.sample(
            torch.zeros_like(samples),
            samples,
            sampler,
            sampler.sigmas.clone(),
            callback=callback or progress_of(model, sampler),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=sampler.seed,
        ).to(samples)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise torch.cuda.OutOfMemoryError(
            f"The memory does not hold even one candidate of {len(samples)} images. Give fewer "
            "images at a time, or smaller ones."
        ) from error
    return put_back(result, samples, sampler.settled.untouched)


def put_back(result: Tensor, samples: Tensor, untouched: Tensor) -> Tensor:
    """`result` (M * B, C, *S) with the input (B, C, *S) where it is untouched (M * B, 1, *S)."""
    original = tile(samples, len(result) // len(samples))
    return torch.where(untouched.to(result.device).expand_as(result), original, result)


def progress_of(
    model: Any, sampler: CandidateSampler, turn: int = 0, turns: int = 1
) -> Callable[..., None]:
    """The host's preview and progress for one of several rounds, on one bar."""
    steps = len(sampler.sigmas) - 1
    show = latent_preview.prepare_callback(model, steps * turns)

    def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        show(turn * total + step, denoised, x, turns * total)

    return callback


class _Round:
    """One turn of the candidates, from what is best so far."""

    choice: Choice
    uncertainty: Uncertainty

    def __init__(
        self,
        plan: SamplingPlan,
        mask: Tensor,
        labels: Tensor,
        options: ResampleOptions,
        turn: int,
        before: Uncertainty | None,
        last: Choice | None,
    ) -> None:
        self.plan = plan
        self.mask = mask
        self.labels = labels
        self.options = options
        self.last = last
        self.keep = options.keep_original or turn > 0
        self.before = before
        self.sampler = CandidateSampler(plan, mask, options, self._settle, turn)

    def _settle(self, found: Candidates, contrast_of: ContrastOf | None) -> Settled:
        compared = self.last is not None and self.last.signal == "trajectory"
        if compared and found.original_trajectory is None:
            # Without a recording the last round's own map says how what it took was decided.
            known = self.before.signal("trajectory").map
            found = replace(found, original_trajectory=known)
        self.choice = choose_regions(
            found, self.mask, self.labels, self.options.chosen_rule, keep=self.keep,
            contrast_of=contrast_of,
        )  # fmt: skip
        recorded = RunSettings() if self.before is None else self.before.settings
        settings = self.plan.settings(recorded)
        self.uncertainty = uncertainty_of(self.before, found, self.choice, self.mask, settings)
        return Settled(composed_latents(found, self.choice), self.choice.untouched)

    @property
    def next_plan(self) -> SamplingPlan:
        """The same from the result, and from its recording where this round replayed one."""
        return replace(self.plan, recording=self.uncertainty.recording)
