from comfy_api.latest import io

from .host.resample import RULES, Repair, resample
from .resample_inputs import (
    denoise_input,
    recorded_guidance_input,
    run_inputs,
    seed_input,
)
from .types import CATEGORY, Uncertainty


class MaskedResample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        run, prompts = run_inputs()
        return io.Schema(
            node_id="MaskedResample",
            display_name="Masked Resample",
            category=CATEGORY,
            description=(
                "Samples the masked region again, several times, and keeps the best. Everything "
                "outside the mask stays as it is, to the bit."
            ),
            inputs=[
                *run,
                io.Mask.Input(
                    "mask",
                    tooltip=(
                        "Where to sample again, in any size; soft edges blend. One for all images "
                        "or one for each."
                    ),
                ),
                *prompts,
                seed_input("seed"),
                denoise_input(),
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
                recorded_guidance_input(),
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
