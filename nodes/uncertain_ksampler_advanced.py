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


class UncertainKSamplerAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffUncertainKSamplerAdvanced",
            display_name="Uncertain KSampler (Advanced)",
            category=CATEGORY,
            description=(
                "KSamplerAdvanced that also says where the image is unsure of itself: a part of "
                "the schedule, with or without noise to begin with and noise left at the end."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model used for denoising."),
                io.Combo.Input(
                    "add_noise",
                    options=["enable", "disable"],
                    tooltip="disable for a latent that is noisy already.",
                ),
                seed_input("noise_seed"),
                steps_input(),
                guidance_input(),
                *sampler_inputs(),
                *conditioning_inputs(),
                io.Int.Input(
                    "start_at_step", default=0, min=0, max=10000, tooltip="First step that runs."
                ),
                io.Int.Input(
                    "end_at_step",
                    default=10000,
                    min=0,
                    max=10000,
                    tooltip="The step before which the run ends.",
                ),
                io.Combo.Input(
                    "return_with_leftover_noise",
                    options=["disable", "enable"],
                    tooltip="enable to go on with another sampler; then there is no contrast.",
                ),
                laplace_input(),
                *method_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent"), *uncertain_outputs()],
        )

    @classmethod
    def execute(
        cls, model, add_noise, noise_seed, steps, cfg, sampler_name, scheduler, positive,
        negative, latent_image, start_at_step, end_at_step, return_with_leftover_noise,
        laplace=None, **options,
    ) -> io.NodeOutput:  # fmt: skip
        schedule = Schedule(
            sampler_name,
            scheduler,
            steps,
            start=start_at_step,
            end=end_at_step,
            leftover_noise=return_with_leftover_noise == "enable",
        )
        latent, uncertainty = sample_uncertain(
            model,
            latent_image,
            positive,
            negative,
            schedule,
            uncertainty_options(laplace, **options),
            seed=noise_seed,
            cfg=cfg,
            add_noise=add_noise == "enable",
        )
        return io.NodeOutput(latent, uncertainty, *scores_and_report(uncertainty))
