from comfy_api.latest import io

from ..demo.bundle import load_model
from .host.demo import pixel_vae, wrap_network
from .types import CATEGORY


class DemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffDemoModel",
            display_name="BayesDiff Demo Model",
            category=f"{CATEGORY}/demo",
            description=(
                "A small diffusion model that comes with the extension: nothing to download. Its "
                "latent is the picture itself."
            ),
            inputs=[
                io.Combo.Input(
                    "name",
                    options=["digits", "emoji"],
                    default="digits",
                    tooltip="digits: scenes of 2x2 handwritten digits. emoji: by category.",
                )
            ],
            outputs=[io.Model.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, name) -> io.NodeOutput:
        network, config = load_model(name)
        return io.NodeOutput(wrap_network(network), pixel_vae(config.channels))
