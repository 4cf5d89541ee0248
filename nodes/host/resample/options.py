"""How a region is to be sampled again: what the user asks for, and the run that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ....bayesdiff_core.laplace import LaplacePosterior
from ....bayesdiff_core.recording import Recording
from ....bayesdiff_core.uncertainty import Uncertainty
from ..ksampler import Schedule
from ..uncertain_sampler import sampler_from

__all__ = ["RECORDED", "RULES", "Overrides", "ResampleOptions", "SamplingPlan", "sampling_plan"]

RULES = {
    "auto": "artifact where there is a negative conditioning, else trajectory",
    "contrast": "the candidate whose region shows the prompt best",
    "trajectory": "the candidate whose region was decided earliest",
    "artifact": "the candidate with the least of both together, as far as they are known",
    "random": "the first candidate, unseen",
    "all": "every candidate, as a batch",
}

RECORDED = "recorded"
"""Stands in a list of choices for what the recorded run used."""


@dataclass(frozen=True)
class Overrides:
    """Overrides of the recorded sampler settings; None keeps the recorded value."""

    sampler_name: str | None = None
    scheduler: str | None = None
    steps: int | None = None
    cfg: float | None = None


@dataclass(frozen=True)
class ResampleOptions:
    """How a region is sampled again; `denoise` is the share of the schedule that runs again.

    `noise_mode` is one of the core's NOISE_MODES; those of the posterior need `posterior`.
    """

    seed: int = 0
    denoise: float = 0.7
    candidates: int = 4
    rule: str = "auto"
    keep_original: bool = True
    noise_mode: str = "denoised"
    posterior: LaplacePosterior | None = None
    rounds: int = 1
    given: Overrides = field(default_factory=Overrides)
    budget_mb: float = 2048.0

    @property
    def moves_by_posterior(self) -> bool:
        return self.noise_mode.startswith("posterior")

    def check(self, positive: Any, negative: Any) -> None:
        """Raises ValueError, in words, where something asked for is missing."""
        if self.rule == "contrast" and not (positive and negative):
            raise ValueError("The rule contrast needs a negative conditioning; use trajectory.")
        if self.moves_by_posterior and self.posterior is None:
            raise ValueError(
                f"The noise mode {self.noise_mode} moves the image along a posterior: connect a "
                "LAPLACE from LaplaceFit on this model, or use the noise mode denoised."
            )


@dataclass(frozen=True)
class SamplingPlan:
    """The run that is done again: sampler, whole schedule (steps + 1,) and guidance scale.

    `recording` is that of a run on this schedule; without one the image is noised anew.
    `recorded_sampler` says that the sampler is the recording's, too.
    """

    sampler: Any
    name: str
    schedule: Tensor
    cfg: float
    recording: Recording | None
    recorded_sampler: bool

    @property
    def metadata(self) -> dict[str, Any]:
        """What a later run has to know to sample in this way."""
        return {
            "sampler_name": self.name,
            "sigmas": self.schedule.tolist(),
            "steps": len(self.schedule) - 1,
            "cfg": self.cfg,
        }


def sampling_plan(
    model: Any, samples: Tensor, uncertainty: Uncertainty | None, given: Overrides
) -> SamplingPlan:
    """The run of these latents (B, C, *S), with what is given in place of what was recorded.

    Raises ValueError when the uncertainty is that of other latents, or nothing says how to sample.
    """
    recording = _recording_of(uncertainty, samples)
    metadata = {} if uncertainty is None else uncertainty.metadata
    name = given.sampler_name or metadata.get("sampler_name")
    scheduler = given.scheduler or metadata.get("scheduler")
    steps = given.steps or metadata.get("steps")
    cfg = metadata.get("cfg") if given.cfg is None else given.cfg
    anew = bool(given.scheduler or given.steps)
    known = recording is not None or "sigmas" in metadata
    wanted = {"sampler_name": name, "scheduler": scheduler, "steps": steps, "cfg": cfg}
    needed = wanted if anew or not known else {"sampler_name": name, "cfg": cfg}
    missing = [what for what, value in needed.items() if value is None]
    if missing:
        raise ValueError(
            f"Choose {_listed(missing)}: no recorded run says what this image is sampled with."
        )
    same_sampler = name == metadata.get("sampler_name")
    sampler = sampler_from(metadata) if same_sampler else comfy.samplers.sampler_object(name)
    if anew:
        schedule = Schedule(name, scheduler, steps, metadata.get("denoise", 1.0)).sigmas(model)
    elif recording is not None:
        schedule = recording.schedule
    else:
        schedule = torch.tensor(metadata["sigmas"])
    if recording is not None:
        if _same(schedule, recording.schedule):
            schedule = recording.schedule
        else:
            recording = None
    return SamplingPlan(sampler, name, schedule, cfg, recording, same_sampler)


def _recording_of(uncertainty: Uncertainty | None, samples: Tensor) -> Recording | None:
    """Raises ValueError where the uncertainty is that of other latents."""
    if uncertainty is None:
        return None
    if uncertainty.recording is not None:
        shape: tuple[int, ...] = tuple(uncertainty.recording.final.shape)
        expected: tuple[int, ...] = tuple(samples.shape)
    else:
        shape = tuple(uncertainty.signal("artifact").map.shape)
        expected = (len(samples), *samples.shape[2:])
    if shape != expected:
        raise ValueError(
            f"The latent has the shape {tuple(samples.shape)} but the UNCERTAINTY was recorded "
            f"for {shape}. Connect both from the same UncertainKSampler."
        )
    return uncertainty.recording


def _same(schedule: Tensor, recorded: Tensor) -> bool:
    return len(schedule) == len(recorded) and torch.allclose(
        schedule.to(recorded), recorded, rtol=1e-4, atol=1e-5
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
