import torch
from comfy_api.latest import io

from .host.demo_models import demo_config
from .types import CATEGORY


class DemoLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffDemoLatent",
            display_name="BayesDiff Demo Latent",
            category=f"{CATEGORY}/demo",
            description="An empty latent of a bundled model's size.",
            inputs=[
                io.Model.Input("model", tooltip="From BayesDiff Demo Model."),
                io.Int.Input(
                    "batch_size", default=4, min=1, max=4096, tooltip="How many images at once."
                ),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, model, batch_size) -> io.NodeOutput:
        shape = (batch_size, *demo_config(model).sample_shape)
        return io.NodeOutput({"samples": torch.zeros(shape)})
