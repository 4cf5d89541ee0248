from comfy_api.latest import io

from .checked_inputs import checked
from .host.resample.plan import Overrides, ResampleOptions
from .inputs import signal_input
from .resample_inputs import (
    denoise_input,
    prompt_inputs,
    recorded_guidance_input,
    seed_input,
    start_posterior_input,
    uncertainty_input,
)
from .types import CATEGORY
from .variants import ALONG, diversify, uncertain_part


class Diversity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffDiversity",
            display_name="Variants where Uncertain",
            category=CATEGORY,
            description=(
                "Makes variants of an image that differ only where it is uncertain, or inside a "
                "mask. Everything else stays as it is, to the bit."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model the image was sampled with."),
                io.Latent.Input("latent", tooltip="The latent of UncertainKSampler."),
                uncertainty_input(),
                *prompt_inputs(),
                seed_input("seed"),
                io.Int.Input(
                    "variants",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="How many of each image; all are sampled in one batch.",
                ),
                denoise_input(),
                signal_input("Which signal says where. A mask replaces it."),
                io.Float.Input(
                    "percentile",
                    default=75.0,
                    min=0.0,
                    max=99.9,
                    step=0.1,
                    tooltip="The image may change where its local mean exceeds this percentile.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where to differ, in place of the signal."
                ),
                recorded_guidance_input(),
                io.Combo.Input(
                    "along",
                    options=list(ALONG),
                    default="regions",
                    optional=True,
                    tooltip="How they differ.\n"
                    + "\n".join(f"{name}: {text}." for name, text in ALONG.items()),
                ),
                start_posterior_input("For along posterior: from LaplaceFit on the same model."),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="All first variants, then all second ones, ..."
                ),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, model, latent, uncertainty, positive, negative, seed, variants, denoise, signal,
        percentile, mask=None, cfg=0.0, along="regions", laplace=None,
    ) -> io.NodeOutput:  # fmt: skip
        posterior = laplace if along == "posterior" else None
        if along == "posterior" and posterior is None:
            raise ValueError(
                "Variants along the posterior need one: connect a LAPLACE from LaplaceFit on this "
                "model, or choose along regions."
            )
        if mask is None and posterior is None:
            mask = uncertain_part(uncertainty, signal, percentile)
        options = ResampleOptions(
            seed=seed,
            denoise=denoise,
            candidates=variants,
            posterior=posterior,
            overrides=Overrides(cfg=cfg or None),
        )
        return io.NodeOutput(
            *diversify(model, latent, uncertainty, mask, positive, negative, options)
        )
