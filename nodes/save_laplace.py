from comfy_api.latest import io

from ..bayesdiff_core.laplace_io import save_posterior
from .folders import forget_list, path_to_save
from .types import CATEGORY, Laplace


class SaveLaplace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffSaveLaplace",
            display_name="Save Laplace",
            category=CATEGORY,
            description="Writes a posterior to models/laplace, for Load Laplace to read.",
            inputs=[
                Laplace.Input("laplace", tooltip="The posterior to keep, from LaplaceFit."),
                io.String.Input(
                    "filename",
                    default="posterior",
                    tooltip="Name in models/laplace, replaced if it exists; folders are allowed.",
                ),
            ],
            outputs=[Laplace.Output(display_name="laplace")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, laplace, filename) -> io.NodeOutput:
        save_posterior(laplace, path_to_save(filename))
        forget_list()
        return io.NodeOutput(laplace)
