"""The inputs and outputs that the uncertain samplers share, and what they mean."""

from __future__ import annotations

from comfy_api.latest import io

from ..bayesdiff_core.laplace import LaplacePosterior
from ..bayesdiff_core.methods import PRESETS, BayesDiff, Ensemble, Method, Tangent
from ..bayesdiff_core.sample import UncertaintyOptions
from .checked_inputs import check_inputs
from .host.ksampler import SAMPLERS, SCHEDULERS
from .types import Laplace, Uncertainty

__all__ = [
    "conditioning_inputs",
    "guidance_input",
    "laplace_input",
    "method_inputs",
    "sampler_inputs",
    "seed_input",
    "steps_input",
    "uncertain_outputs",
    "uncertainty_options",
]


def seed_input(name: str) -> io.Input:
    """What decides the noise.

    Arguments:
        name: Of the input.

    Returns:
        A whole number of 64 bits, which the page may change after each run.
    """
    return io.Int.Input(
        name,
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip="Decides the noise.",
    )


def steps_input() -> io.Input:
    """The length of the schedule.

    Returns:
        The input `steps`, 1 or more.
    """
    return io.Int.Input(
        "steps", default=20, min=1, max=10000, tooltip="How many steps the schedule has."
    )


def guidance_input() -> io.Input:
    """The guidance scale.

    Returns:
        The input `cfg`, in [0, 100].
    """
    return io.Float.Input(
        "cfg",
        default=8.0,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        tooltip="Guidance scale; 1 leaves out the negative conditioning.",
    )


def sampler_inputs() -> list[io.Input]:
    """Sampler and schedule by the host's names.

    Returns:
        The inputs `sampler_name` and `scheduler`.
    """
    return [
        io.Combo.Input(
            "sampler_name",
            options=SAMPLERS,
            tooltip="Uncertainty is carried through every one of them.",
        ),
        io.Combo.Input("scheduler", options=SCHEDULERS, tooltip="How noise falls with the steps."),
    ]


def conditioning_inputs() -> list[io.Input]:
    """What to sample.

    Returns:
        The inputs `positive`, `negative` and `latent_image`.
    """
    return [
        io.Conditioning.Input("positive", tooltip="What the image should show."),
        io.Conditioning.Input("negative", tooltip="What to guide away from; also for contrast."),
        io.Latent.Input("latent_image", tooltip="The latent to denoise."),
    ]


def laplace_input() -> io.Input:
    """The posterior that the signal of that name needs.

    Returns:
        The input `laplace`, optional.
    """
    return Laplace.Input(
        "laplace",
        optional=True,
        tooltip=(
            "From LaplaceFit on the same model: adds the signal posterior. Without it the others "
            "still come."
        ),
    )


def uncertain_outputs() -> list[io.Output]:
    """What the uncertain samplers give besides the latent.

    Returns:
        The outputs `uncertainty`, `scores` and `report`.
    """
    return [
        Uncertainty.Output(display_name="uncertainty"),
        io.Float.Output(
            display_name="scores",
            is_output_list=True,
            tooltip="One number an image by the signal artifact; high is suspect.",
        ),
        io.String.Output(display_name="report", tooltip="The scores of all signals, as text."),
    ]


METHODS = {
    "tangent": "follows coherent weight errors through the run; cheap, see preset",
    "ensemble": "samples again with other weights, members times; the reference, and as costly",
    "bayesdiff": "the published recursion, for comparison; it changes the latent by definition",
}


def method_inputs() -> list[io.Input]:
    """What to compute besides the latent, and at which cost.

    Returns:
        The optional inputs that `uncertainty_options` takes, in the order of the nodes.
    """
    return [
        io.Combo.Input(
            "preset",
            options=[*PRESETS, "custom"],
            default="balanced",
            optional=True,
            tooltip=(
                "What the method tangent may cost, in extra evaluations per evaluation: "
                + ", ".join(f"{name} {tangent.budget:g}" for name, tangent in PRESETS.items())
                + ". custom takes the two numbers below."
            ),
        ),
        io.Int.Input(
            "probes",
            default=PRESETS["balanced"].probes,
            min=1,
            max=64,
            optional=True,
            tooltip="For custom: how many weight errors are followed, shifts first, then draws.",
        ),
        io.Int.Input(
            "refreshes",
            default=PRESETS["balanced"].refreshes,
            min=1,
            max=1000,
            optional=True,
            tooltip="For custom: at how many evaluations of the run they are followed anew.",
        ),
        io.Boolean.Input(
            "contrast",
            default=True,
            optional=True,
            tooltip=(
                "Also ask where the image shows the prompt no better than any other image would. "
                "Costs six evaluations after the run and needs a negative conditioning."
            ),
        ),
        io.Int.Input(
            "recording_mb",
            default=2048,
            min=0,
            max=1 << 20,
            optional=True,
            tooltip=(
                "Memory for the recorded trajectory, which MaskedResample needs to leave the rest "
                "of the image alone."
            ),
        ),
        io.Combo.Input(
            "method",
            options=list(METHODS),
            default="tangent",
            optional=True,
            tooltip="How a posterior becomes uncertainty of the image.\n"
            + "\n".join(f"{name}: {text}." for name, text in METHODS.items()),
        ),
        io.Int.Input(
            "members",
            default=10,
            min=2,
            max=1024,
            optional=True,
            tooltip="For ensemble: how many runs with other weights.",
        ),
        io.Int.Input(
            "skip",
            default=1,
            min=1,
            max=1000,
            optional=True,
            tooltip="For bayesdiff: every how many steps the recursion is evaluated.",
        ),
    ]


def uncertainty_options(
    laplace: LaplacePosterior | None,
    preset: str = "balanced",
    probes: int = PRESETS["balanced"].probes,
    refreshes: int = PRESETS["balanced"].refreshes,
    contrast: bool = True,
    recording_mb: int = 2048,
    method: str = "tangent",
    members: int = 10,
    skip: int = 1,
) -> UncertaintyOptions:
    """What the inputs of `method_inputs` ask for.

    Arguments:
        laplace: Of the last layer; None for no signal `posterior`.
        preset: One of PRESETS, or custom, for tangent.
        probes, refreshes: Weight errors followed, and how often anew in a run, for custom.
        contrast: Whether to compute that signal, too.
        recording_mb: Memory for the recorded trajectory, in units of 2^20 bytes.
        method: One of METHODS.
        members: Runs with other weights, for ensemble.
        skip: Every how many steps the recursion is evaluated, for bayesdiff.

    Returns:
        Options for `bayesdiff_core.sample`.

    Raises:
        ValueError: If one is out of its range.
    """
    given = {
        **{"preset": preset, "probes": probes, "refreshes": refreshes, "method": method},
        **{"recording_mb": recording_mb, "members": members, "skip": skip},
    }
    check_inputs(method_inputs(), {name: [value] for name, value in given.items()})
    chosen: Method
    if method == "ensemble":
        chosen = Ensemble(members)
    elif method == "bayesdiff":
        chosen = BayesDiff(skip=skip)
    else:
        chosen = PRESETS.get(preset) or Tangent(probes, refreshes)
    return UncertaintyOptions(laplace, chosen, contrast, recording_mb)
