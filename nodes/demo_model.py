from comfy_api.latest import io

from .host.demo_models import load_demo
from .types import CATEGORY


class DemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffDemoModel",
            display_name="BayesDiff Demo Model",
            category=f"{CATEGORY}/demo",
            description=(
                "A small diffusion model that comes with the extension: nothing to download. The "
                "latent of digits and emoji is the picture itself; letters has a real VAE."
            ),
            inputs=[
                io.Combo.Input(
                    "name",
                    options=["digits", "emoji", "letters"],
                    default="digits",
                    tooltip=(
                        "digits: scenes of 2x2 handwritten digits. emoji: by category. letters: "
                        "scenes of 2x2 capitals, made in latent space like a large model's."
                    ),
                )
            ],
            outputs=[io.Model.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, name) -> io.NodeOutput:
        return io.NodeOutput(*load_demo(name))
