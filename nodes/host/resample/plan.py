"""How a recorded run is done again: what the user asks for, and the run that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ....bayesdiff_core.laplace import LaplacePosterior
from ....bayesdiff_core.recording import Recording
from ....bayesdiff_core.resample.noise_modes import NOISE_MODES, NoiseMode
from ....bayesdiff_core.resample.rules import RULES, Rule
from ....bayesdiff_core.uncertainty import RunSettings, Uncertainty
from ..ksampler import Schedule
from ..solver_run import Solvers
from ..uncertain_run import sampler_from
from ..validation import is_recorded

__all__ = ["Overrides", "ResampleOptions", "SamplingPlan", "plan_resampling"]


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

    `noise_mode` is one of the core's NOISE_MODES, some of which need a `posterior`, `rule` one of
    its RULES.
    """

    seed: int = 0
    denoise: float = 0.7
    candidates: int = 4
    rule: str = "auto"
    keep_original: bool = True
    noise_mode: str = "denoised"
    posterior: LaplacePosterior | None = None
    rounds: int = 1
    overrides: Overrides = field(default_factory=Overrides)
    budget_mb: float = 2048.0

    @property
    def mode(self) -> NoiseMode:
        return NOISE_MODES[self.noise_mode]

    @property
    def chosen_rule(self) -> Rule:
        return RULES[self.rule]

    def check(self, positive: Any, negative: Any) -> None:
        """Raises ValueError, in words, where something asked for is missing."""
        needed = self.chosen_rule.signals
        if needed == ("contrast",) and not (positive and negative):
            raise ValueError(
                f"The rule {self.rule} needs a negative conditioning; use trajectory."
            )
        if self.mode.needs_posterior and self.posterior is None:
            raise ValueError(
                f"The noise mode {self.noise_mode} moves the image along a posterior: connect a "
                "LAPLACE from LaplaceFit on this model, or use the noise mode denoised."
            )


@dataclass(frozen=True)
class SamplingPlan:
    """Sampler, whole schedule (steps + 1,) and guidance scale of the run to repeat.

    `recording` is that of a run on this schedule; without one the image is noised as a whole.
    `recorded_sampler` says that the sampler is the recording's, too, `edited` that the latents
    are not the recorded ones any more. `solvers` are shared by all rounds.
    """

    sampler: Any
    name: str
    schedule: Tensor
    cfg: float
    recording: Recording | None
    recorded_sampler: bool
    edited: bool = False
    solvers: Solvers = field(default_factory=Solvers)

    def settings(self, recorded: RunSettings) -> RunSettings:
        """What a later run has to know to sample in this way; what was recorded stays."""
        return replace(
            recorded,
            sampler_name=recorded.sampler_name or self.name,
            sigmas=recorded.sigmas or tuple(self.schedule.tolist()),
            steps=recorded.steps or len(self.schedule) - 1,
            cfg=self.cfg if recorded.cfg is None else recorded.cfg,
        )


def plan_resampling(
    model: Any, samples: Tensor, uncertainty: Uncertainty | None, overrides: Overrides
) -> SamplingPlan:
    """The run to repeat on these latents.

    Arguments:
        model: The MODEL, for schedules that are not recorded.
        samples: Latents, shape (B, C, *S).
        uncertainty: Of the run that made them, where there was one.
        overrides: What to take in place of what was recorded.

    Raises:
        ValueError: If the uncertainty is that of other latents, or nothing says how to sample.
    """
    recording = _recording_of(uncertainty, samples)
    recorded = RunSettings() if uncertainty is None else uncertainty.settings
    same_sampler = overrides.sampler_name in (None, recorded.sampler_name)
    wanted = replace(
        recorded,
        sampler_name=overrides.sampler_name or recorded.sampler_name,
        scheduler=overrides.scheduler or recorded.scheduler,
        steps=overrides.steps or recorded.steps,
        cfg=recorded.cfg if overrides.cfg is None else overrides.cfg,
    )
    new_schedule = bool(overrides.scheduler or overrides.steps)
    known = recording is not None or bool(recorded.sigmas)
    _check_complete(wanted, needs_schedule=new_schedule or not known)
    if new_schedule or not known:
        schedule = Schedule(
            wanted.sampler_name, wanted.scheduler, wanted.steps, recorded.denoise
        ).sigmas(model)
    else:
        schedule = torch.tensor(recorded.sigmas) if recording is None else recording.schedule
    edited = recording is not None and not is_recorded(model, samples, recording)
    if edited:
        recording = None
    if recording is not None:
        if _same(schedule, recording.schedule):
            schedule = recording.schedule
        else:
            recording = None
    name = wanted.sampler_name
    sampler = sampler_from(recorded) if same_sampler else comfy.samplers.sampler_object(name)
    return SamplingPlan(sampler, name, schedule, wanted.cfg, recording, same_sampler, edited)


def _check_complete(wanted: RunSettings, needs_schedule: bool) -> None:
    names = ["sampler_name", "scheduler", "steps", "cfg"]
    needed = names if needs_schedule else ["sampler_name", "cfg"]
    missing = [name for name in needed if getattr(wanted, name) is None]
    if missing:
        raise ValueError(
            f"Choose {_listed(missing)}: no recorded run says what this image is sampled with."
        )


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
