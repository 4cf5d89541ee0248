from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..bayesdiff_core.compose import contour, side_by_side
from ..bayesdiff_core.heatmap import COLORMAPS, colorize, normalize, overlay, scale_limits
from ..bayesdiff_core.mask import feather, grow, threshold_mask
from ..bayesdiff_core.uncertainty import SIGNALS
from ..bayesdiff_core.upsample import guided_upsample, upsample
from .types import CATEGORY, Uncertainty


class UncertaintyHeatmap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UncertaintyHeatmap",
            display_name="Uncertainty Heatmap",
            category=CATEGORY,
            description="Shows where an image is unsure of itself, and masks the worst of it.",
            inputs=[
                Uncertainty.Input("uncertainty", tooltip="From UncertainKSampler."),
                io.Image.Input(
                    "image", optional=True, tooltip="The decoded image, to lay the heat over."
                ),
                io.Combo.Input(
                    "signal",
                    options=list(SIGNALS),
                    default="artifact",
                    tooltip=". ".join(f"{name}: {text}" for name, text in SIGNALS.items()),
                ),
                io.Combo.Input(
                    "display",
                    options=["overlay", "heatmap", "side by side", "contour"],
                    default="overlay",
                    tooltip="What the picture shows. All but heatmap need the image.",
                ),
                io.Combo.Input("colormap", options=list(COLORMAPS), default="inferno"),
                io.Combo.Input(
                    "scale",
                    options=["image", "batch"],
                    default="image",
                    tooltip="Colours by each image alone, or shared so that images compare.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Of the heat over the image, where it is strongest.",
                ),
                io.Float.Input(
                    "threshold",
                    default=90.0,
                    min=0.0,
                    max=100.0,
                    step=0.5,
                    tooltip="Percentile: 90 masks the highest tenth of each image.",
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
            ],
            outputs=[io.Image.Output(display_name="image"), io.Mask.Output(display_name="mask")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, uncertainty, signal, display, colormap, scale, opacity, threshold, grow, feather,
        image=None,
    ) -> io.NodeOutput:  # fmt: skip
        maps = pixel_maps(uncertainty.signal(signal).map, image)
        mask = region(maps, threshold, grow, feather)
        picture = draw(maps, mask, image, display, colormap, scale, opacity)
        return io.NodeOutput(picture, mask, ui=ui.PreviewImage(picture, cls=cls))


def pixel_maps(latent_maps: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
    """Maps (B, H, W) in image resolution; the frames of a video follow one another."""
    maps = latent_maps.reshape(-1, *latent_maps.shape[-2:])
    if image is None:
        return upsample(maps, (maps.shape[-2], maps.shape[-1]))
    if len(image) not in (1, len(maps)):
        raise ValueError(
            f"There are {len(maps)} uncertainty maps but {len(image)} images. Connect the images "
            "that were decoded from the same latent."
        )
    return guided_upsample(maps, image[..., :3].cpu())


def region(maps: torch.Tensor, threshold: float, growth: float, fade: float) -> torch.Tensor:
    """Mask (B, H, W) of the highest values."""
    return feather(grow(threshold_mask(maps, percentile=threshold), growth), fade)


def draw(
    maps: torch.Tensor,
    mask: torch.Tensor,
    image: torch.Tensor | None,
    display: str,
    colormap: str,
    scale: str,
    opacity: float,
) -> torch.Tensor:
    limits = scale_limits(maps, mode=scale)
    heat = colorize(maps, limits, colormap)
    if image is None or display == "heatmap":
        return heat
    image = image[..., :3].cpu().float().expand(len(maps), -1, -1, -1)
    if display == "side by side":
        return side_by_side(image, heat)
    if display == "contour":
        return contour(image, mask)
    return overlay(image, heat, opacity, strength=normalize(maps, limits))
