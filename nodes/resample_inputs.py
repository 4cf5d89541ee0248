"""The inputs that the nodes share which run a part of a recorded run again."""

from __future__ import annotations

from comfy_api.latest import io

from .sampler_inputs import seed_input
from .types import Uncertainty

__all__ = ["denoise_input", "recorded_guidance_input", "run_inputs", "seed_input"]


def run_inputs() -> tuple[list[io.Input], list[io.Input]]:
    """The recorded run, and its prompts."""
    run = [
        io.Model.Input("model", tooltip="The model the image was sampled with."),
        io.Latent.Input("latent", tooltip="The latent of UncertainKSampler."),
        Uncertainty.Input("uncertainty", tooltip="Of the same latent."),
    ]
    prompts = [
        io.Conditioning.Input("positive", tooltip="What the region should show."),
        io.Conditioning.Input("negative", tooltip="As in the run, as a rule."),
    ]
    return run, prompts


def denoise_input() -> io.Input:
    return io.Float.Input(
        "denoise",
        default=0.7,
        min=0.01,
        max=1.0,
        step=0.01,
        tooltip="Share of the schedule that runs again: high changes more.",
    )


def recorded_guidance_input() -> io.Input:
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
