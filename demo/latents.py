"""Latents of letter scenes, drawn once: what the latent-space model learns from.

A pool of scenes is encoded, and a training scene takes each of its quadrants from a scene of the
pool, in the place it had there: 4,000 scenes give 4,000^4 combinations.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .bundle import load_autoencoder, weights_path, write_whole
from .data import CACHE, Batches
from .letters import letter_batches
from .scene import joined, quadrants

__all__ = ["latent_pool", "pool_batches"]


def latent_pool(scenes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Latents (N, 16, 16, 16) of letter scenes and their labels (N, 4); kept in the cache.

    The file's name carries the time stamp of the autoencoder's weights.
    """
    stamp = weights_path("letters_vae").stat().st_mtime_ns
    path = CACHE / "train" / f"letters_latents_{scenes}_{seed}_{stamp}.safetensors"
    if not path.is_file():
        encoded = _encode(scenes, seed)
        write_whole(path, lambda unfinished: save_file(encoded, unfinished))
    pool = load_file(path)
    return pool["latents"].float(), pool["labels"]


def pool_batches(latents: Tensor, labels: Tensor) -> Batches:
    """Latents (B, 16, 16, 16) whose quadrants come from different scenes of the pool."""
    tiles, cells = quadrants(latents), torch.arange(4)

    def draw(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(latents), (size, 4), generator=generator)
        return joined(tiles[index, cells]), labels[index, cells]

    return draw


@torch.no_grad()
def _encode(scenes: int, seed: int) -> dict[str, Tensor]:
    autoencoder = load_autoencoder("letters_vae").to(memory_format=torch.channels_last)
    batches, generator = letter_batches(), torch.Generator().manual_seed(seed)
    latents, labels = [], []
    for start in range(0, scenes, 32):
        images, shown = batches(min(32, scenes - start), generator)
        with torch.autocast("cpu", torch.bfloat16):
            encoded = autoencoder.encode(images.contiguous(memory_format=torch.channels_last))
        latents.append(encoded.half().contiguous())
        labels.append(shown)
    return {"latents": torch.cat(latents), "labels": torch.cat(labels)}
