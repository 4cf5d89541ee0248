from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..bayesdiff_core.laplace_io import load_posterior
from .folders import FOLDER, saved_posteriors
from .types import CATEGORY, Laplace


class LoadLaplace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffLoadLaplace",
            display_name="Load Laplace",
            category=CATEGORY,
            description="Reads a posterior that Save Laplace wrote to models/laplace.",
            inputs=[
                io.Combo.Input(
                    "filename",
                    options=saved_posteriors(),
                    tooltip="A file in models/laplace; it must be of the model you sample with.",
                )
            ],
            outputs=[Laplace.Output(display_name="laplace")],
        )

    @classmethod
    def execute(cls, filename) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(FOLDER, filename)
        return io.NodeOutput(load_posterior(path))

    @classmethod
    def fingerprint_inputs(cls, filename) -> float:
        """The file may have been written again under the same name."""
        path = folder_paths.get_full_path(FOLDER, filename)
        return Path(path).stat().st_mtime if path else 0.0
