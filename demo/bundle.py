"""The bundled models as files: weights in safetensors, the configuration in their metadata."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from .network import SceneConfig, SceneUNet

__all__ = ["MODELS", "load_model", "load_weights", "save_model", "save_weights"]

MODELS = Path(__file__).parent / "models"


def load_model(name: str, device: torch.device | str = "cpu") -> tuple[SceneUNet, SceneConfig]:
    """The bundled diffusion model ``name`` ("digits" or "emoji"), float32, in eval mode.

    Raises FileNotFoundError when its weights are missing.
    """
    weights, config = load_weights(name)
    config = SceneConfig(
        **{
            field: tuple(value) if isinstance(value, list) else value
            for field, value in config.items()
        }
    )
    model = SceneUNet(config)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False), config


def save_model(model: SceneUNet) -> Path:
    """Write the model under its configuration's name, in half precision."""
    return save_weights(model.config.name, model, dataclasses.asdict(model.config))


def load_weights(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """State dict in float32 and configuration of the file ``name`` in the models folder."""
    path = MODELS / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"The bundled model '{name}' is missing: {path} does not exist. "
            f"Restore it from the repository or train it again (see demo/models)."
        )
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    return weights, config


def save_weights(name: str, module: nn.Module, config: dict) -> Path:
    """Write a module's state dict in half precision, its configuration as JSON metadata."""
    MODELS.mkdir(exist_ok=True)
    path = MODELS / f"{name}.safetensors"
    weights = {key: value.half().contiguous() for key, value in module.state_dict().items()}
    unfinished = path.with_suffix(".part")
    save_file(weights, unfinished, metadata={"config": json.dumps(config)})
    unfinished.replace(path)  # a reader never sees half a file
    return path
