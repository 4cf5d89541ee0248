"""The inputs that all uncertain samplers share, and what they mean."""

from __future__ import annotations

from comfy_api.latest import io

from ..bayesdiff_core.methods import PRESETS, Tangent

__all__ = ["method_inputs", "method_of"]


def method_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "preset",
            options=[*PRESETS, "custom"],
            default="balanced",
            optional=True,
            tooltip=(
                "How much the signal posterior may cost, beside nothing for the others: "
                + ", ".join(
                    f"{name} {tangent.probes} x {tangent.refreshes}"
                    for name, tangent in PRESETS.items()
                )
                + " extra evaluations over the run. custom takes the two numbers below."
            ),
        ),
        io.Int.Input(
            "probes",
            default=PRESETS["balanced"].probes,
            min=1,
            max=64,
            optional=True,
            tooltip="For custom: how many directions of weight error are followed.",
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
                "Costs four evaluations after the run and needs a negative conditioning."
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
    ]


def method_of(preset: str, probes: int, refreshes: int) -> Tangent:
    return PRESETS.get(preset) or Tangent(probes, refreshes)
