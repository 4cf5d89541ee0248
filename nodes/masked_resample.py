from comfy_api.latest import io

from .host.resample.options import RECORDED, RULES, ResampleOptions
from .host.resample.rounds import resample
from .resample_inputs import (
    denoise_input,
    noise_mode_inputs,
    override_inputs,
    overrides_of,
    prompt_inputs,
    recorded_guidance_input,
    seed_input,
)
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
                io.Latent.Input(
                    "latent", tooltip="The latent of UncertainKSampler, or any other."
                ),
                Uncertainty.Input(
                    "uncertainty",
                    optional=True,
                    tooltip=(
                        "Of the same latent. Without it sampler_name, scheduler, steps and cfg "
                        "are needed, and the image is noised anew around the region."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    tooltip=(
                        "Where to sample again, in any size; soft edges blend. One for all images "
                        "or one for each."
                    ),
                ),
                *prompt_inputs(),
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
                    tooltip=(
                        "Whether the image may stay as it is where no candidate beats it. With "
                        "the rule all: whether it comes last in the batch."
                    ),
                ),
                recorded_guidance_input(),
                *noise_mode_inputs(),
                *override_inputs(),
                io.Int.Input(
                    "rounds",
                    default=1,
                    min=1,
                    max=10,
                    optional=True,
                    tooltip=(
                        "Tries again with other noise, each time from what is best so far, until "
                        "no region gets better."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="With the rule all: all first candidates, then all second ones, ...",
                ),
                Uncertainty.Output(display_name="uncertainty"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def execute(
        cls, model, latent, mask, positive, negative, seed, denoise, candidates, rule,
        keep_original, uncertainty=None, cfg=0.0, noise_mode="denoised", laplace=None,
        sampler_name=RECORDED, scheduler=RECORDED, steps=0, rounds=1,
    ) -> io.NodeOutput:  # fmt: skip
        repair = ResampleOptions(
            seed, denoise, candidates, rule, keep_original, noise_mode, laplace, rounds,
            overrides_of(sampler_name, scheduler, steps, cfg),
        )  # fmt: skip
        return io.NodeOutput(
            *resample(model, latent, uncertainty, mask, positive, negative, repair)
        )
