"""The bundled models as files: weights in safetensors, the configuration in their metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .autoencoder import Autoencoder, cut
from .network import SceneConfig, SceneUNet
from .transformer import SceneTransformer, TransformerConfig

__all__ = [
    "MODELS",
    "Config",
    "Network",
    "build_network",
    "load_autoencoder",
    "load_config",
    "load_decoder",
    "load_model",
    "load_weights",
    "save_model",
    "save_weights",
    "weights_path",
    "write_whole",
]

Config = SceneConfig | TransformerConfig
Network = SceneUNet | SceneTransformer

MODELS = Path(__file__).parent / "models"


def load_model(name: str, device: torch.device | str = "cpu") -> tuple[Network, Config]:
    """The bundled diffusion model ``name`` ("digits", "emoji" or "letters"), float32, eval mode.

    Raises:
        FileNotFoundError: If its weights are missing.
    """
    weights, fields = load_weights(name)
    config = _network_config(fields)
    model = build_network(config)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False), config


def load_config(name: str) -> Config:
    """The configuration of a bundled diffusion model alone."""
    with safe_open(weights_path(name), framework="pt") as file:
        return _network_config(_fields(file))


def build_network(config: Config) -> Network:
    """The network of a configuration, with random weights."""
    if isinstance(config, TransformerConfig):
        return SceneTransformer(config)
    return SceneUNet(config)


def load_autoencoder(name: str, device: torch.device | str = "cpu") -> Autoencoder:
    """The autoencoder in the file ``name``, at the width it was trained at, float32, eval mode.

    Raises:
        FileNotFoundError: If its weights are missing.
    """
    weights, config = load_weights(name)
    model = Autoencoder(**config)
    model.load_state_dict(cut(weights, config["width"]))
    return model.to(device).eval().requires_grad_(False)


def save_model(model: Network) -> Path:
    """Write the model under its configuration's name, in half precision."""
    return save_weights(model.config.name, model.state_dict(), dataclasses.asdict(model.config))


def load_decoder(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from samples (B, C, H, W) of a bundled model to pictures (B, C', H', W').

    The samples of `digits` and `emoji` are pictures. Values lie in [-1, 1] but may overshoot:
    clamp before showing.
    """
    if isinstance(load_config(name), SceneConfig):
        return lambda samples: samples
    autoencoder = load_autoencoder(f"{name}_vae").to(memory_format=torch.channels_last)

    @torch.no_grad()
    def decode(samples: torch.Tensor) -> torch.Tensor:
        # A few at a time: 64 scenes at full resolution would fill a gigabyte.
        return torch.cat([autoencoder.decode(few) for few in samples.split(16)]).contiguous()

    return decode


def load_weights(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """State dict in float32 and configuration of the file ``name`` in the models folder."""
    with safe_open(weights_path(name), framework="pt") as file:
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        return weights, _fields(file)


def weights_path(name: str) -> Path:
    """The file ``name`` in the models folder.

    Raises:
        FileNotFoundError: If it is missing.
    """
    path = MODELS / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"The bundled model '{name}' is missing: {path} does not exist. "
            f"Restore it from the repository or train it again (see demo/models)."
        )
    return path


def save_weights(name: str, state: dict[str, torch.Tensor], config: dict) -> Path:
    """Write a state dict in half precision, its configuration as JSON metadata."""
    path = MODELS / f"{name}.safetensors"
    weights = {key: value.half().contiguous() for key, value in state.items()}
    metadata = {"config": json.dumps(config)}
    write_whole(path, lambda unfinished: save_file(weights, unfinished, metadata))
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it, so that a reader never sees half of it.

    Makes the folder where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    write(unfinished)
    unfinished.replace(path)


def _fields(file: safe_open) -> dict:
    """The configuration of a file; JSON turns tuples into lists, this turns them back."""
    config = json.loads(file.metadata()["config"])
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
    }


def _network_config(fields: dict) -> Config:
    """The configuration of a diffusion model with these fields."""
    return TransformerConfig(**fields) if "depth" in fields else SceneConfig(**fields)
