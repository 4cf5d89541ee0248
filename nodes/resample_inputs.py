"""The inputs that the nodes share which run a part of a recorded run again."""

from __future__ import annotations

from comfy_api.latest import io

from ..bayesdiff_core.resample.noise_modes import NOISE_MODES
from .host.ksampler import SAMPLERS, SCHEDULERS
from .host.resample.plan import Overrides
from .sampler_inputs import seed_input
from .types import Laplace, Uncertainty

__all__ = [
    "RECORDED",
    "denoise_input",
    "noise_mode_inputs",
    "override_inputs",
    "overrides_of",
    "prompt_inputs",
    "recorded_guidance_input",
    "seed_input",
    "start_posterior_input",
    "uncertainty_input",
]


RECORDED = "recorded"
"""Stands in a list of choices for what the recorded run used."""


def uncertainty_input() -> io.Input:
    """The run to repeat.

    Returns:
        The input `uncertainty`, required.
    """
    return Uncertainty.Input("uncertainty", tooltip="Of the same latent.")


def prompt_inputs() -> list[io.Input]:
    """The prompts of a region.

    Returns:
        The inputs `positive` and `negative`.
    """
    return [
        io.Conditioning.Input("positive", tooltip="What the region should show."),
        io.Conditioning.Input("negative", tooltip="As in the run, as a rule."),
    ]


def denoise_input() -> io.Input:
    """How much of a recorded run is done again.

    Returns:
        The input `denoise`, a share of the schedule in [0.01, 1].
    """
    return io.Float.Input(
        "denoise",
        default=0.7,
        min=0.01,
        max=1.0,
        step=0.01,
        tooltip="Share of the schedule that runs again: high changes more.",
    )


def recorded_guidance_input() -> io.Input:
    """Guidance scale in place of the recorded one.

    Returns:
        The input `cfg`, optional; 0 keeps what was recorded.
    """
    return io.Float.Input(
        "cfg",
        default=0.0,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        optional=True,
        tooltip="Guidance scale; 0 takes the one of the recorded run.",
    )


def noise_mode_inputs() -> list[io.Input]:
    """Where a region starts from.

    Returns:
        The inputs `noise_mode` and `laplace`, optional.
    """
    return [
        io.Combo.Input(
            "noise_mode",
            options=list(NOISE_MODES),
            default="denoised",
            optional=True,
            tooltip="Where the region starts from.\n"
            + "\n".join(f"{name}: {mode.text}." for name, mode in NOISE_MODES.items()),
        ),
        start_posterior_input("For the noise modes of the posterior: from LaplaceFit."),
    ]


def start_posterior_input(tooltip: str) -> io.Input:
    """A posterior that moves the state from which a run starts.

    Arguments:
        tooltip: What it is for.

    Returns:
        The input `laplace`, optional.
    """
    return Laplace.Input("laplace", optional=True, tooltip=tooltip)


def override_inputs() -> list[io.Input]:
    """Sampler and schedule in place of what was recorded.

    Returns:
        The inputs `sampler_name`, `scheduler` and `steps`, optional; RECORDED and 0 keep it.
    """
    return [
        io.Combo.Input(
            "sampler_name",
            options=[RECORDED, *SAMPLERS],
            default=RECORDED,
            optional=True,
            tooltip=(
                "Another sampler than the recorded run's; needed where nothing is recorded. If "
                "its steps are not the recorded ones, the image is noised anew around the region."
            ),
        ),
        io.Combo.Input(
            "scheduler",
            options=[RECORDED, *SCHEDULERS],
            default=RECORDED,
            optional=True,
            tooltip="Another schedule than the recorded run's: the image is then noised anew.",
        ),
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=10000,
            optional=True,
            tooltip=(
                "Steps of the whole schedule, of which the last share denoise is run; 0 takes "
                "those of the recorded run."
            ),
        ),
    ]


def overrides_of(sampler_name: str, scheduler: str, steps: int, cfg: float) -> Overrides:
    """What the inputs ask for in place of what was recorded.

    Arguments:
        sampler_name, scheduler: RECORDED, or the host's names.
        steps: Of the whole schedule, or 0.
        cfg: Guidance scale, or 0.

    Returns:
        With None for RECORDED and 0.
    """
    return Overrides(
        sampler_name=None if sampler_name == RECORDED else sampler_name,
        scheduler=None if scheduler == RECORDED else scheduler,
        steps=steps or None,
        cfg=cfg or None,
    )
