from comfy_api.latest import io

from ..bayesdiff_core.uncertainty import SIGNALS
from .checked_inputs import checked
from .host.contrast import contrast_of_latent
from .types import CATEGORY, Uncertainty


class Contrast(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffContrast",
            display_name="Contrast of a Latent",
            category=CATEGORY,
            description=(
                "Judges any latent, a photograph's too: "
                f"{SIGNALS['contrast'].text}. Six guided evaluations an image."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model that judges."),
                io.Latent.Input(
                    "latent", tooltip="Finished images, sampled anywhere or encoded by the VAE."
                ),
                io.Conditioning.Input("positive", tooltip="What the images should show."),
                io.Conditioning.Input(
                    "negative", tooltip="What to compare with: an empty prompt, as a rule."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Decides the noise that the judgement uses.",
                ),
                Uncertainty.Input(
                    "uncertainty",
                    optional=True,
                    tooltip="Of the same latent, to add the signal to; else a new one is made.",
                ),
            ],
            outputs=[Uncertainty.Output(display_name="uncertainty")],
        )

    @classmethod
    @checked
    def execute(cls, model, latent, positive, negative, seed, uncertainty=None) -> io.NodeOutput:
        return io.NodeOutput(
            contrast_of_latent(model, latent, positive, negative, seed, uncertainty)
        )
