from comfy_api.latest import io

from .host.resample import RULES, Repair, resample
from .types import CATEGORY, Uncertainty


class MaskedResample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskedResample",
            display_name="Masked Resample",
            category=CATEGORY,
            description=(
                "Samples the masked region again, several times, and keeps the best. Everything "
                "outside the mask stays as it is, to the bit."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model the image was sampled with."),
                io.Latent.Input("latent", tooltip="The latent of UncertainKSampler."),
                Uncertainty.Input("uncertainty", tooltip="Of the same latent."),
                io.Mask.Input(
                    "mask",
                    tooltip=(
                        "Where to sample again, in any size; soft edges blend. One for all images "
                        "or one for each."
                    ),
                ),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Decides the fresh noise.",
                ),
                io.Float.Input(
                    "denoise",
                    default=0.7,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the schedule that runs again: high changes more.",
                ),
                io.Int.Input(
                    "candidates",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="How many are sampled at once for each image.",
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default="auto",
                    tooltip=". ".join(f"{name}: {text}" for name, text in RULES.items()),
                ),
                io.Boolean.Input(
                    "keep_original",
                    default=True,
                    tooltip="Whether the image may stay as it is where no candidate beats it.",
                ),
                io.Float.Input(
                    "cfg",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    optional=True,
                    tooltip="Guidance scale; 0 takes the one of the recorded run.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent"),
                Uncertainty.Output(display_name="uncertainty"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def execute(
        cls, model, latent, uncertainty, mask, positive, negative, seed, denoise, candidates,
        rule, keep_original, cfg=0.0,
    ) -> io.NodeOutput:  # fmt: skip
        repair = Repair(seed, denoise, candidates, rule, keep_original, cfg or None)
        return io.NodeOutput(
            *resample(model, latent, uncertainty, mask, positive, negative, repair)
        )
