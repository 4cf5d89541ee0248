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
    """What to take in place of the recorded settings; None keeps what was recorded."""

    sampler_name: str | None = None
    scheduler: str | None = None
    steps: int | None = None
    cfg: float | None = None


@dataclass(frozen=True)
class ResampleOptions:
    """How a region is sampled again.

    Attributes:
        seed: Decides the candidates' noise.
        denoise: Share of the schedule that runs again, in (0, 1].
        candidates: How many for each image.
        rule: One of the core's RULES.
        keep_original: Whether it stays where no candidate beats it.
        noise_mode: One of the core's NOISE_MODES.
        posterior: For the modes that need one.
        rounds: At most, each from the result of the one before.
        overrides: Of the recorded settings.
        budget_mb: Memory for the candidates' recording, in units of 2^20 bytes.
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
        """What NOISE_MODES holds for `noise_mode`."""
        return NOISE_MODES[self.noise_mode]

    @property
    def chosen_rule(self) -> Rule:
        """What RULES holds for `rule`."""
        return RULES[self.rule]

    def check(self, positive: Any, negative: Any) -> None:
        """Refuses options for which something is missing.

        Arguments:
            positive, negative: CONDITIONING, empty where there is none.

        Raises:
            ValueError: If the rule needs a negative conditioning, or the noise mode a posterior.
        """
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
    """The run to repeat.

    Attributes:
        sampler: SAMPLER.
        name: Its name, for people.
        schedule: The whole of it, shape (steps + 1,).
        cfg: Guidance scale.
        recording: Of a run on this schedule; without one the image is noised as a whole.
        recorded_sampler: Whether the sampler is the recording's, too.
        edited: Whether the latents are not the recorded ones any more.
        solvers: Of the sampler on these schedules, shared by all rounds.
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
        """What a later run has to know to sample in this way.

        Arguments:
            recorded: Of the run that made the latents; what it knows stays.

        Returns:
            Its settings, with what it lacks filled in.
        """
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
    """The run to repeat on given latents.

    Arguments:
        model: The MODEL, for schedules that are not recorded.
        samples: Latents, shape (B, C, *S).
        uncertainty: Of the run that made them, where there was one.
        overrides: What to take in place of what was recorded.

    Returns:
        With the recording only where its schedule is used and the latents are its result.

    Raises:
        ValueError: If the uncertainty is that of other latents, nothing says how to sample, or the
            host cannot make the recorded sampler again.
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
