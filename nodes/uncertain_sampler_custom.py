from comfy_api.latest import io

from .host.ksampler import sample_custom
from .report import scores_and_report
from .sampler_inputs import laplace_input, method_inputs, uncertain_outputs, uncertainty_options
from .types import CATEGORY


class UncertainSamplerCustom(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffUncertainSamplerCustom",
            display_name="Uncertain Sampler (Custom)",
            category=CATEGORY,
            description=(
                "SamplerCustomAdvanced that also says where the image is unsure of itself, for "
                "any guider, sampler and sigmas, as Flux workflows use them."
            ),
            inputs=[
                io.Noise.Input("noise", tooltip="Starting noise, as from RandomNoise."),
                io.Guider.Input("guider", tooltip="Model, prompts and guidance, as one."),
                io.Sampler.Input("sampler", tooltip="Any sampler but one that changes the size."),
                io.Sigmas.Input("sigmas", tooltip="Noise levels of the run, from high to low."),
                io.Latent.Input(
                    "latent_image", tooltip="An empty latent, or the image to start from."
                ),
                laplace_input(),
                *method_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent"),
                io.Latent.Output(display_name="denoised_latent"),
                *uncertain_outputs(),
            ],
        )

    @classmethod
    def execute(
        cls, noise, guider, sampler, sigmas, latent_image, laplace=None, **options,
    ) -> io.NodeOutput:  # fmt: skip
        wanted = uncertainty_options(laplace, **options)
        *latents, uncertainty = sample_custom(noise, guider, sampler, sigmas, latent_image, wanted)
        return io.NodeOutput(*latents, uncertainty, *scores_and_report(uncertainty))
