"""Velocity network of `letters`: a small multimodal diffusion transformer.

The architecture and the names of the weights are those of Stable Diffusion 3 (MMDiT; Esser et al.,
2024, with the second, image-only attention of version 3.5 Medium), which a host loads by itself;
this module needs no host. Tokens are 2x2 patches of the latent. The time and the sum of the label
codes modulate every block; the label codes, one token a cell, take the place of the text.

Labels are coded by unit vectors: label k in cell i is the unit vector number i * classes + k, and
"none" is zero. So a zeroed conditioning is the unconditional one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scene import Scene

__all__ = ["SceneTransformer", "TransformerConfig", "label_codes"]

HEAD = 64
PATCH = 2
TIME_FEATURES = 256


@dataclass(frozen=True)
class TransformerConfig(Scene):
    """Shape of a model and the meaning of its labels. `depth` blocks of width 64 depth."""

    depth: int

    @property
    def width(self) -> int:
        """Features of a token; the host derives the number of blocks from it."""
        return HEAD * self.depth

    @property
    def code_width(self) -> int:
        """Length of a label's code."""
        return self.n_labels * self.null_label

    @property
    def shift(self) -> float:
        """What the host sets for this architecture."""
        return 3.0

    @property
    def grid(self) -> int:
        """Tokens along one side."""
        return self.image_size // PATCH


def label_codes(y: Tensor, scene: Scene) -> Tensor:
    """Codes (B, n_labels, n_labels * n_classes) of labels (B, n_labels)."""
    classes = scene.null_label
    codes = torch.zeros(*y.shape, scene.n_labels * classes, device=y.device)
    place = y.clamp(max=classes - 1) + torch.arange(scene.n_labels, device=y.device) * classes
    return codes.scatter(-1, place[..., None], (y < classes).float()[..., None])


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    """Projections of multi-head attention; the attention itself may join several streams."""

    def __init__(self, width: int, output: bool = True) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.qkv = nn.Linear(width, 3 * width)
        if output:
            self.proj = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """Queries, keys and values (3, B, heads, tokens, HEAD)."""
        return self.qkv(x).unflatten(-1, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(self.split(x)))


class Stream(nn.Module):
    """The weights of one kind of token, image or label, in one block."""

    def __init__(self, width: int, last: bool = False, own_attention: bool = False) -> None:
        super().__init__()
        self.chunks = 2 if last else 9 if own_attention else 6
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, output=not last)
        if own_attention:
            self.attn2 = Attention(width)
        if not last:
            self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
            self.mlp = Mlp(width)
        self.adaLN_modulation = _modulation(width, self.chunks)

    def modulations(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """Shifts, scales and gates (B, 1, width) of an embedding (B, width)."""
        return self.adaLN_modulation(embedding)[:, None].chunk(self.chunks, dim=-1)


class Block(nn.Module):
    """Joint attention of image and label tokens, then a network for each on its own.

    In the last block the label tokens are read only.
    """

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        self.context_block = Stream(width, last=last)
        self.x_block = Stream(width, own_attention=True)

    def forward(self, context: Tensor, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        for_context = self.context_block.modulations(embedding)
        for_image = self.x_block.modulations(embedding)
        normed = self.x_block.norm1(x)
        joint = torch.cat(
            [
                self.context_block.attn.split(
                    modulate(self.context_block.norm1(context), *for_context[:2])
                ),
                self.x_block.attn.split(modulate(normed, *for_image[:2])),
            ],
            dim=-2,
        )
        labels, image = attend(joint).split([context.shape[1], x.shape[1]], dim=1)
        x = x + for_image[2] * self.x_block.attn.proj(image)
        x = x + for_image[8] * self.x_block.attn2(modulate(normed, *for_image[6:8]))
        x = feed_forward(self.x_block, x, *for_image[3:6])
        if len(for_context) > 2:
            context = context + for_context[2] * self.context_block.attn.proj(labels)
            context = feed_forward(self.context_block, context, *for_context[3:6])
        return context, x


class Embedder(nn.Module):
    """Two layers from a vector to the width of the tokens."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class PatchEmbedder(nn.Module):
    """Tokens (B, N, width) of a latent (B, C, H, W)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class FinalLayer(nn.Module):
    """Modulated norm and the linear layer that carries the Laplace posterior."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = _modulation(width, 2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(embedding)[:, None].chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class SceneTransformer(nn.Module):
    """Predicts the velocity ``noise - x_0`` of a latent."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.x_embedder = PatchEmbedder(config.channels, width)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, config.grid**2, width))
        self.t_embedder = Embedder(TIME_FEATURES, width)
        self.y_embedder = Embedder(config.code_width, width)
        self.context_embedder = nn.Linear(config.code_width, width)
        self.joint_blocks = nn.ModuleList(
            Block(width, last=i == config.depth - 1) for i in range(config.depth)
        )
        self.final_layer = FinalLayer(width, PATCH**2 * config.channels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity (B, C, H, W) of latents ``x`` (B, C, H, W) at times ``t`` (B,) in [0, 1].

        ``y`` (B, n_labels) holds the labels as integers, row by row of the grid.
        """
        codes = label_codes(y, self.config)
        embedding = self.t_embedder(time_features(t)) + self.y_embedder(codes.sum(dim=1))
        context, tokens = self.context_embedder(codes), self.x_embedder(x) + self.pos_embed
        for block in self.joint_blocks:
            context, tokens = block(context, tokens, embedding)
        return self._unpatchify(self.final_layer(tokens, embedding))

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        grid, size = self.config.grid, self.config.image_size
        patches = tokens.unflatten(-1, (PATCH, PATCH, -1)).unflatten(1, (grid, grid))
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, size, size)


def attend(qkv: Tensor) -> Tensor:
    """Attention (B, tokens, width) of queries, keys and values (3, B, heads, tokens, HEAD)."""
    return F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)


def feed_forward(stream: Stream, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    """The second half of a block for one stream."""
    return x + gate * stream.mlp(modulate(stream.norm2(x), shift, scale))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, tokens, width) scaled by 1 + scale and shifted."""
    return x * (1 + scale) + shift


def time_features(t: Tensor) -> Tensor:
    """Cosines and sines (B, 256) of 1000 t at frequencies from 1 down to 1/10000."""
    octaves = torch.arange(TIME_FEATURES // 2, device=t.device) / (TIME_FEATURES // 2)
    phase = 1000 * t.float()[:, None] * torch.exp(-math.log(10000.0) * octaves)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def _modulation(width: int, chunks: int) -> nn.Sequential:
    """Shifts, scales and gates of an embedding, all zero before training."""
    linear = nn.Linear(width, chunks * width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)
