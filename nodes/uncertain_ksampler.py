from comfy_api.latest import io

from .host.ksampler import Schedule, sample_uncertain
from .report import scores_and_report
from .sampler_inputs import (
    conditioning_inputs,
    guidance_input,
    laplace_input,
    method_inputs,
    sampler_inputs,
    seed_input,
    steps_input,
    uncertain_outputs,
    uncertainty_options,
)
from .types import CATEGORY


class UncertainKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UncertainKSampler",
            display_name="Uncertain KSampler",
            category=CATEGORY,
            description=(
                "KSampler that also says where the image is unsure of itself. The latent is the "
                "one KSampler makes, to the bit."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model used for denoising."),
                seed_input("seed"),
                steps_input(),
                guidance_input(),
                *sampler_inputs(),
                *conditioning_inputs(),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 the latent is noised and denoised only so far.",
                ),
                laplace_input(),
                *method_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent"), *uncertain_outputs()],
        )

    @classmethod
    def execute(
        cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image,
        denoise=1.0, laplace=None, **options,
    ) -> io.NodeOutput:  # fmt: skip
        latent, uncertainty = sample_uncertain(
            model,
            latent_image,
            positive,
            negative,
            Schedule(sampler_name, scheduler, steps, denoise),
            uncertainty_options(laplace, **options),
            seed=seed,
            cfg=cfg,
        )
        return io.NodeOutput(latent, uncertainty, *scores_and_report(uncertainty))
