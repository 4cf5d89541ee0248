from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io

from ..bayesdiff_core.map_checks import displayable
from ..bayesdiff_core.pixel_std import PIXEL_UNIT, pixel_std
from ..bayesdiff_core.render.heatmap import COLORMAPS
from ..bayesdiff_core.render.pictures import DISPLAYS, Look, draw_uncertainty
from ..bayesdiff_core.render.viewer_payload import frames
from ..bayesdiff_core.segments import Selection
from ..bayesdiff_core.step_maps import STEP_UNIT, step_map
from ..bayesdiff_core.uncertainty import Signal
from .checked_inputs import checked
from .inputs import signal_input
from .types import CATEGORY, Uncertainty
from .viewer import show


class UncertaintyHeatmap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UncertaintyHeatmap",
            display_name="Uncertainty Heatmap",
            category=CATEGORY,
            description=(
                "Shows where an image is unsure of itself, how sure the rest is, and what would "
                "be sampled again. The viewer on the node reads every value and moves the mask."
            ),
            inputs=[
                Uncertainty.Input("uncertainty", tooltip="From UncertainKSampler."),
                io.Image.Input(
                    "image", optional=True, tooltip="The decoded images, to lay the heat over."
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=(
                        "Optional, with the image: the signal posterior is pushed through the "
                        "decoder and read as std of the picture's pixels."
                    ),
                ),
                *look_inputs(),
                *selection_inputs(),
                *further_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="What display shows."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="In the size of the image, feathered; for MaskedResample.",
                ),
                io.BBOX.Output(
                    display_name="boxes",
                    is_output_list=True,
                    tooltip="An entry an image: [left, top, right, bottom] of each region, the "
                    "largest first.",
                ),
                io.SEGS.Output(
                    display_name="segs",
                    is_output_list=True,
                    tooltip="The same regions with their masks, for detailer nodes.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(
        cls, uncertainty, signal, display, colormap, scale, opacity, threshold, grow, feather,
        image=None, vae=None, minimum_area=0, threshold_by="percentile", threshold_value=0.0,
        scale_low=0.0, scale_high=1.0, step=0, color_bar=False,
    ) -> io.NodeOutput:  # fmt: skip
        uncertainty = replace(uncertainty, signals=signals_of(uncertainty, image, vae))
        shown = shown_signal(uncertainty, signal, step)
        maps = frames(shown.map)
        images = matching(image, len(maps))
        by_value = threshold_by == "value"
        drawn = draw_uncertainty(
            maps,
            images,
            unit=shown.unit,
            look=Look(
                display=display,
                colormap=colormap,
                scale=scale,
                limits=(scale_low, scale_high) if scale == "fixed" else None,
                opacity=opacity,
                bar=color_bar,
            ),
            selection=Selection(
                percentile=None if by_value else threshold,
                value=threshold_value if by_value else None,
                grow=grow,
                minimum_area=minimum_area,
                feather=feather,
            ),
        )
        viewer = show(
            uncertainty.signals,
            uncertainty.artifact_source,
            images,
            tuple(drawn.mask.shape[-2:]),
            uncertainty.recording,
        )
        return io.NodeOutput(*drawn, ui=viewer)


def look_inputs() -> list[io.Input]:
    """What is shown, and how.

    Returns:
        The inputs `signal`, `display`, `colormap`, `scale` and `opacity`.
    """
    return [
        signal_input(),
        io.Combo.Input(
            "display",
            options=list(DISPLAYS),
            default="overlay",
            tooltip=(
                "overlay: heat over the image, sure parts stay clear.\nheatmap: colours alone.\n"
                "side by side: the image, then its heatmap.\ncontour: the image with the outline "
                "of the mask."
            ),
        ),
        io.Combo.Input(
            "colormap",
            options=list(COLORMAPS),
            default="inferno",
            tooltip=(
                "inferno, magma, viridis and cividis keep their order in grey and for "
                "colour-blind readers, cividis most of all. turbo tells more values apart."
            ),
        ),
        io.Combo.Input(
            "scale",
            options=["image", "batch", "fixed"],
            default="image",
            tooltip=(
                "image: the colours span the unsurer half of each image, from its median to its "
                "99th percentile.\nbatch: shared, so that the images of a batch compare.\n"
                "fixed: from scale_low to scale_high, so that runs compare."
            ),
        ),
        io.Float.Input(
            "opacity",
            default=0.7,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Of the heat over the image, where it is strongest.",
        ),
    ]


def selection_inputs() -> list[io.Input]:
    """What belongs to the mask.

    Returns:
        The inputs `threshold`, `grow` and `feather`.
    """
    return [
        io.Float.Input(
            "threshold",
            default=90.0,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip=(
                "Percentile above which a pixel belongs to the mask: 90 takes the highest tenth "
                "of each image. The viewer's histogram sets it, too."
            ),
        ),
        io.Float.Input(
            "grow",
            default=2.0,
            min=-512.0,
            max=512.0,
            step=0.5,
            tooltip="Pixels by which the mask grows, or shrinks if negative.",
        ),
        io.Float.Input(
            "feather",
            default=0.0,
            min=0.0,
            max=512.0,
            step=0.5,
            tooltip="Pixels over which the mask fades out around itself.",
        ),
    ]


def further_inputs() -> list[io.Input]:
    """What is rarely set, of the mask and of the look.

    Returns:
        Optional inputs, from `minimum_area` to `color_bar`.
    """
    return [
        io.Int.Input(
            "minimum_area",
            default=0,
            min=0,
            max=2**24,
            optional=True,
            tooltip="Regions with fewer pixels are left out of the mask, before it grows.",
        ),
        io.Combo.Input(
            "threshold_by",
            options=["percentile", "value"],
            default="percentile",
            optional=True,
            tooltip=(
                "percentile: each image has a threshold of its own. value: all have "
                "threshold_value, so that a sure image gets no mask."
            ),
        ),
        io.Float.Input(
            "threshold_value",
            default=0.0,
            min=-1e6,
            max=1e6,
            step=0.0001,
            round=1e-8,
            optional=True,
            tooltip="In the unit of the signal, which the viewer shows; for threshold_by value.",
        ),
        io.Int.Input(
            "step",
            default=0,
            min=0,
            max=10000,
            optional=True,
            tooltip=(
                "0: the signal. From 1: what was still undecided at this step of the run, as "
                "distance of the prediction from the result."
            ),
        ),
        io.Float.Input(
            "scale_low",
            default=0.0,
            min=-1e6,
            max=1e6,
            step=0.0001,
            round=1e-8,
            optional=True,
            tooltip="Value of the first colour, in the unit of the signal. Used by scale fixed.",
        ),
        io.Float.Input(
            "scale_high",
            default=1.0,
            min=-1e6,
            max=1e6,
            step=0.0001,
            round=1e-8,
            optional=True,
            tooltip="Value of the last colour, in the unit of the signal. Used by scale fixed.",
        ),
        io.Boolean.Input(
            "color_bar",
            default=False,
            optional=True,
            tooltip="Draws the scale with numbers beside the picture.",
        ),
    ]


def signals_of(uncertainty: Any, image: torch.Tensor | None, vae: Any | None) -> dict[str, Signal]:
    """The signals of a run; with a VAE the posterior is that of the picture's pixels.

    Arguments:
        uncertainty: UNCERTAINTY of B samples.
        image: The decoded images, one for each of its maps or for all, shape (N, H, W, C).
        vae: VAE that decoded them.

    Returns:
        Signals by name; `posterior` as std of a pixel whose range is 1, where there is a VAE.

    Raises:
        ValueError: If there is a VAE and a posterior but no image, or another number of images.
    """
    if vae is None or uncertainty.latent_std is None:
        return uncertainty.signals
    if image is None:
        raise ValueError(
            "The VAE pushes the posterior through the decoder around an image: connect the "
            "decoded image as well, or disconnect the VAE."
        )
    std = uncertainty.latent_std
    images = matching(image, len(frames(std[:, 0])))
    latent = vae.encode(images).cpu().float()

    def decode(samples: torch.Tensor) -> torch.Tensor:
        pictures = vae.decode(samples)
        return pictures.reshape(-1, *pictures.shape[-3:]).cpu()

    spread = pixel_std(decode, latent, std)
    return {**uncertainty.signals, "posterior": Signal(spread, PIXEL_UNIT)}


def shown_signal(uncertainty: Any, signal: str, step: int) -> Signal:
    """The map that is shown: a signal, or what was undecided at one step.

    Arguments:
        uncertainty: UNCERTAINTY of B samples.
        signal: Its name.
        step: 0 for the signal, else from 1 to the number of evaluations.

    Returns:
        A map (B, *S) and its unit.

    Raises:
        ValueError: If the run did not compute that signal, or recorded no such step.
    """
    if step == 0:
        return uncertainty.signal(signal)
    if uncertainty.recording is None:
        raise ValueError(
            "This run was not recorded, so it has no single steps. Raise recording_mb in "
            "UncertainKSampler, or set step to 0."
        )
    return Signal(step_map(uncertainty.recording, step), STEP_UNIT)


def matching(image: torch.Tensor | None, count: int) -> torch.Tensor | None:
    """Images to lay the heat over, one for each map.

    Arguments:
        image: Shape (count or 1, H, W, C), of which the first three channels are colours.
        count: Number of maps.

    Returns:
        In [0, 1], shape (count, H, W, 3); None where there is no image.

    Raises:
        ValueError: If there is another number of images, or they have no colours.
    """
    if image is None:
        return None
    image = displayable(image[..., :3].cpu())
    if len(image) not in (1, count):
        raise ValueError(
            f"There are {count} uncertainty maps but {len(image)} images. Connect the images that "
            "were decoded from the same latent."
        )
    return image.expand(count, -1, -1, -1)
