import torch
from comfy_api.latest import io, ui

from ..bayesdiff_core.render.heatmap import COLORMAPS
from ..bayesdiff_core.render.pictures import Look
from ..bayesdiff_core.render.plot import plot_histogram, plot_steps
from ..bayesdiff_core.render.viewer_payload import frames
from ..bayesdiff_core.step_maps import STEP_UNIT, step_totals
from .checked_inputs import checked
from .inputs import signal_input
from .types import CATEGORY, Uncertainty


class UncertaintyPlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffUncertaintyPlot",
            display_name="Uncertainty Plot",
            category=CATEGORY,
            description=(
                "Draws how much each image had still to decide at every step, and how a signal is "
                "spread over the pixels."
            ),
            inputs=[
                Uncertainty.Input("uncertainty", tooltip="From UncertainKSampler."),
                signal_input("Whose values the histogram counts."),
                io.Combo.Input(
                    "colormap",
                    options=list(COLORMAPS),
                    default="inferno",
                    tooltip="Colours of the histogram's bars: those of the heatmap, scale batch.",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=256,
                    max=4096,
                    step=2,
                    tooltip="Of the picture, in pixels.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="Steps above, histogram below; without a recording no steps.",
                )
            ],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(cls, uncertainty, signal, colormap, width) -> io.NodeOutput:
        chosen = uncertainty.signal(signal)
        maps = frames(chosen.map)
        limits = Look(scale="batch").limits_of(maps)[0]
        parts = [plot_histogram(maps, chosen.unit, width, width // 2, colormap, limits)]
        if uncertainty.recording is not None:
            totals = step_totals(uncertainty.recording)
            parts.insert(0, plot_steps(totals, STEP_UNIT, width, width // 2))
        picture = torch.cat(parts)[None]
        return io.NodeOutput(picture, ui=ui.PreviewImage(picture))
