"""The bundled networks as models of the host.

`digits` and `emoji` are networks of this project's own, wrapped, with a latent that is the picture
itself. `letters` has the layout of an architecture of the host and comes in through its loaders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor, nn

from ...demo.bundle import load_config, load_model, weights_path
from ...demo.network import SceneConfig, SceneUNet
from ...demo.scene import Scene
from ...demo.transformer import TransformerConfig, label_codes

__all__ = [
    "demo_config",
    "labels_conditioning",
    "load_demo",
    "load_transformer",
    "load_vae",
    "pixel_vae",
    "wrap_network",
]


class PixelFormat(comfy.latent_formats.LatentFormat):
    """Pictures in [-1, 1], grey or in colour."""

    spacial_downscale_ratio = 1

    def __init__(self, channels: int) -> None:
        self.latent_channels = channels
        colour = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        self.latent_rgb_factors = [[1.0, 1.0, 1.0]] if channels == 1 else colour


class DemoNetwork(nn.Module):
    """The plain network under the host's way of calling one."""

    def __init__(self, network: SceneUNet) -> None:
        super().__init__()
        self.network = network

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor, **_options: Any) -> Tensor:
        return self.network(x, timesteps, y)


class DemoModel(comfy.model_base.BaseModel):
    """Flow matching whose conditioning is a grid of labels.

    The prompt arrives as numbers (B, labels, 1), 0 for "none" and 1 + label otherwise: a zeroed
    conditioning is the unconditional one, as with text.
    """

    def __init__(self, network: SceneUNet, device: torch.device) -> None:
        super().__init__(
            _model_config(network.config), comfy.model_base.ModelType.FLOW, device=device
        )
        self.scene: SceneConfig = network.config
        self.diffusion_model = DemoNetwork(network)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        out = super().extra_conds(**{**kwargs, "cross_attn": None})
        codes = kwargs.get("cross_attn")
        if codes is None or codes.shape[1:] != (self.scene.n_labels, 1):
            raise ValueError(
                f"This conditioning is not one for the bundled model '{self.scene.name}'. Make it "
                "with BayesDiffDemoPrompt, connected to the same model."
            )
        labels = codes[..., 0].round().long() - 1
        labels = torch.where(labels < 0, self.scene.null_label, labels)
        out["y"] = comfy.conds.CONDRegular(labels.to(kwargs["device"]))
        return out


def wrap_network(network: SceneUNet) -> comfy.model_patcher.ModelPatcher:
    """A network of this project's own as a model of the host.

    Arguments:
        network: Held by the model, not copied.

    Returns:
        MODEL, on the device where the host keeps models that are not in use.
    """
    management = comfy.model_management
    offload_device = management.unet_offload_device()
    model = DemoModel(network, offload_device).to(offload_device)
    return comfy.model_patcher.ModelPatcher(model, management.get_torch_device(), offload_device)


def load_demo(name: str) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.VAE]:
    """A bundled model.

    Arguments:
        name: "digits", "emoji" or "letters".

    Returns:
        MODEL and VAE.

    Raises:
        FileNotFoundError: If its weights are missing.
        RuntimeError: If the host is too old for latents that are pictures.
    """
    if name == "letters":
        return load_transformer(weights_path(name)), load_vae(weights_path(f"{name}_vae"))
    network, config = load_model(name)
    return wrap_network(network), pixel_vae(config.channels)


def load_transformer(path: Path) -> comfy.model_patcher.ModelPatcher:
    """A transformer by the loader of the host's node "Load Diffusion Model".

    Arguments:
        path: A file of `demo.transformer`.

    Returns:
        MODEL.
    """
    return comfy.sd.load_diffusion_model(str(path))


def load_vae(path: Path) -> comfy.sd.VAE:
    """An autoencoder by the loader of the host's node "Load VAE".

    Arguments:
        path: A file of `demo.autoencoder`.

    Returns:
        VAE.
    """
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(path)))


def demo_config(model: Any) -> Scene:
    """Shape and labels of a bundled model.

    Arguments:
        model: The MODEL.

    Returns:
        What its samples and prompts have to look like.

    Raises:
        ValueError: If it is none of the bundled models.
    """
    if isinstance(model.model, DemoModel):
        return model.model.scene
    if isinstance(model.model, comfy.model_base.SD3):
        config = load_config("letters")
        if model.model.model_config.unet_config.get("adm_in_channels") == config.code_width:
            return config
    raise ValueError(
        "This node belongs to the bundled models; connect BayesDiffDemoModel to it. Other "
        "models have prompts and latents of their own."
    )


def labels_conditioning(scene: Scene, labels: Tensor) -> list[Any]:
    """Labels as a prompt for a bundled model.

    In both forms zeros stand for "none", so the host's zeroed conditioning is the empty prompt.

    Arguments:
        scene: Configuration of the model.
        labels: Whole numbers, `scene.null_label` for "none", shape (B, n_labels).

    Returns:
        CONDITIONING of B prompts.
    """
    if isinstance(scene, TransformerConfig):
        codes = label_codes(labels, scene)
        return [[codes, {"pooled_output": codes.sum(dim=1)}]]
    codes = torch.where(labels == scene.null_label, 0, labels + 1)
    return [[codes.float()[..., None], {}]]


class GreyPixels(nn.Module):
    """A grey picture as latent of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def encode(self, pixels: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return pixels.mean(1, keepdim=True)

    def decode(self, samples: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return samples.expand(-1, 3, *samples.shape[2:])


def pixel_vae(channels: int) -> comfy.sd.VAE:
    """VAE that only changes the layout, between pictures and latents that are pictures.

    Arguments:
        channels: Of the latents: 1 for grey pictures, 3 for colour.

    Returns:
        VAE.

    Raises:
        RuntimeError: If the host is too old to have one of that kind.
    """
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    if vae.first_stage_model is None:
        raise RuntimeError(
            "The bundled models 'digits' and 'emoji' need ComfyUI 0.3.60 or newer, which has a "
            "VAE for latents that are pictures. Update ComfyUI, or choose 'letters'."
        )
    if channels == 1:
        vae.first_stage_model = GreyPixels().eval().to(vae.vae_dtype)
        vae.latent_channels = 1
        vae.patcher = comfy.model_patcher.ModelPatcher(
            vae.first_stage_model, vae.device, vae.patcher.offload_device
        )
    return vae


def _model_config(scene: SceneConfig) -> comfy.supported_models_base.BASE:
    config = comfy.supported_models_base.BASE({"disable_unet_model_creation": True})
    config.latent_format = PixelFormat(scene.channels)
    config.sampling_settings = {"shift": 1.0, "multiplier": 1.0}
    config.memory_usage_factor = 0.1
    return config
