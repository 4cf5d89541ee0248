"""The host's own architectures, small enough for a test, with random weights."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from tests.host.conftest import Scene, noise
from tests.support.host import Host

__all__ = ["ARCHITECTURES", "tiny_scene"]

WIDTH = 16
"""Of the text embeddings."""

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1,
    "use_spatial_transformer": True, "context_dim": WIDTH, "use_linear_in_transformer": False,
    "adm_in_channels": None, "use_temporal_attention": False, "legacy": False,
}  # fmt: skip

MMDIT = {
    "in_channels": 16, "patch_size": 2, "depth": 1, "input_size": None, "adm_in_channels": WIDTH,
    "pos_embed_scaling_factor": None, "num_patches": 64, "pos_embed_max_size": 8,
    "qk_norm": "rms", "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 64},
    },
}  # fmt: skip

FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
    "vec_in_dim": WIDTH, "context_in_dim": WIDTH, "hidden_size": 64, "mlp_ratio": 2.0,
    "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [8, 12, 12],
    "theta": 10000, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [],
}  # fmt: skip

WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "text_len": 8,
    "in_dim": 16, "dim": 48, "ffn_dim": 64, "freq_dim": 32, "text_dim": WIDTH, "out_dim": 16,
    "num_heads": 2, "num_layers": 1,
}  # fmt: skip

LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 48, "n_layers": 1,
    "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "multiple_of": 16,
    "ffn_dim_multiplier": 1.0, "qk_norm": True, "cap_feat_dim": WIDTH, "axes_dims": [8, 8, 8],
    "axes_lens": [64, 64, 64],
}  # fmt: skip

ARCHITECTURES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "unet": ("SD15", UNET, (4, 8, 8)),
    "mmdit": ("SD3", MMDIT, (16, 8, 8)),
    # An odd size: the network pads, and crops what it returns.
    "flux": ("Flux", FLUX, (16, 7, 8)),
    "wan": ("WAN21_T2V", WAN, (16, 3, 6, 8)),
    "lumina": ("Lumina2", LUMINA, (16, 8, 8)),
}
"""Class in the host's `supported_models`, its configuration, and the shape of a latent."""


def tiny_scene(host: Host, architecture: str, batch: int = 2) -> Scene:
    """A model with two prompts, ready to be sampled."""
    import comfy.model_patcher
    import comfy.supported_models
    from comfy.ldm.flux.model import FluxParams

    name, settings, shape = ARCHITECTURES[architecture]
    if "txt_ids_dims" not in {field.name for field in fields(FluxParams)}:  # before Flux 2
        settings = {key: value for key, value in settings.items() if key != "txt_ids_dims"}
    config = getattr(comfy.supported_models, name)({**settings, "dtype": torch.float32})
    device = torch.device("cpu")
    model = config.get_model({}, device=device).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    # Some architectures leave a table of positions among the buffers for a checkpoint to fill.
    for tensor in (*model.parameters(), *model.diffusion_model.buffers()):
        tensor.copy_(0.15 * torch.randn(tensor.shape, generator=generator))
    patcher = comfy.model_patcher.ModelPatcher(model, device, device)
    extras = {}
    if architecture == "lumina":  # counts the tokens by their mask
        extras["attention_mask"] = torch.ones(1, 8, dtype=torch.long)
    positive, negative = prompt(batch, 1, extras), prompt(1, 2, extras)
    return Scene(host, patcher, positive, negative, {"samples": torch.zeros(batch, *shape)})


def prompt(rows: int, seed: int, extras: dict[str, Any]) -> list[Any]:
    text = noise((rows, 8, WIDTH), seed)
    return [[text, {"pooled_output": text.mean(1), **extras}]]
