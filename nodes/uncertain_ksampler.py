from comfy_api.latest import io

from .host.sampling import SAMPLERS, SCHEDULERS, Wanted, sample_uncertain
from .report import describe
from .tangent_options import method_inputs, method_of
from .types import CATEGORY, Laplace, Uncertainty


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
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Decides the noise.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10000),
                io.Float.Input(
                    "cfg",
                    default=8.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance scale; 1 leaves out the negative conditioning.",
                ),
                io.Combo.Input("sampler_name", options=SAMPLERS),
                io.Combo.Input("scheduler", options=SCHEDULERS),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image"),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
                Laplace.Input(
                    "laplace",
                    optional=True,
                    tooltip=(
                        "From LaplaceFit on the same model: adds the signal posterior. Without it "
                        "the others still come."
                    ),
                ),
                *method_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent"),
                Uncertainty.Output(display_name="uncertainty"),
                io.Float.Output(
                    display_name="scores",
                    is_output_list=True,
                    tooltip="One number an image by the signal artifact; high is suspect.",
                ),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def execute(
        cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image,
        denoise=1.0, laplace=None, preset="balanced", probes=3, refreshes=5, contrast=True,
        recording_mb=2048,
    ) -> io.NodeOutput:  # fmt: skip
        wanted = Wanted(laplace, method_of(preset, probes, refreshes), contrast, recording_mb)
        latent, uncertainty = sample_uncertain(
            model,
            latent_image,
            positive,
            negative,
            wanted,
            seed=seed,
            steps=steps,
            cfg=cfg,
            sampler_name=sampler_name,
            scheduler=scheduler,
            denoise=denoise,
        )
        scores = uncertainty.signal("artifact").scores.tolist()
        return io.NodeOutput(latent, uncertainty, scores, describe(uncertainty))
