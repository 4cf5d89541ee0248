from comfy_api.latest import io

from .checked_inputs import checked
from .host.fit import fit_posterior
from .types import CATEGORY, Laplace


class LaplaceFit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LaplaceFit",
            display_name="Laplace Fit",
            category=CATEGORY,
            description=(
                "Fits a Laplace approximation to the last layer of the model: which other weights "
                "would have explained these images about as well. No training, one forward pass "
                "per image and noise draw. Twenty images are enough for a start."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model you sample with, LoRAs included."),
                io.Latent.Input(
                    "latents",
                    tooltip=(
                        "A batch of clean latents like those the model was trained on: encoded "
                        "photographs, or images that the model itself has made."
                    ),
                ),
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="What the images show: one prompt for all, or a batch with one each.",
                ),
                io.Int.Input(
                    "draws",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="Noise draws per latent, each at a random noise level.",
                ),
                io.Combo.Input(
                    "structure",
                    options=["auto", "full", "diag"],
                    default="auto",
                    tooltip=(
                        "Covariance of the weights. full keeps all correlations, diag none and "
                        "overstates the scale. auto: full unless the layer is very wide."
                    ),
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Decides the noise draws and their levels.",
                ),
            ],
            outputs=[
                Laplace.Output(display_name="laplace"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    @checked
    def execute(cls, model, latents, conditioning, draws, structure, seed) -> io.NodeOutput:
        fit = fit_posterior(
            model,
            latents,
            conditioning,
            draws=draws,
            structure=None if structure == "auto" else structure,
            seed=seed,
        )
        return io.NodeOutput(fit.posterior, fit.report())
