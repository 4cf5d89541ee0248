"""Velocity network of `digits` and `emoji`: a small U-Net conditioned on a grid of labels.

Flow matching on images in [-1, 1]: with noise ``n`` and time ``t`` in [0, 1],

    x_t = (1 - t) x_0 + t n,    v = n - x_0,    denoised = x_t - t v,

so that ``t`` is the noise level sigma of the sampler. The labels sit on a grid of the image (2x2
for scenes of four digits, 1x1 for one category): each is added to the time embedding and, as a
flat patch, to the features of its own cell. One label stands for "none" (the null label); it is
the unconditional half of classifier-free guidance (Ho & Salimans, 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scene import Scene

__all__ = ["SceneConfig", "SceneUNet"]


@dataclass(frozen=True)
class SceneConfig(Scene):
    """Shape of a model and the meaning of its labels.

    ``widths`` are the channels at each resolution, from ``image_size`` down by halves.
    """

    widths: tuple[int, ...]
    blocks: int = 2


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the embedding scales and shifts the features between them."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class SelfAttention(nn.Module):
    """Multi-head self-attention over the pixels of a small feature map."""

    def __init__(self, channels: int, head_channels: int = 32):
        super().__init__()
        self.heads = channels // head_channels
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(dim=1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(h.reshape(b, c, height, width))


class SceneUNet(nn.Module):
    """Predicts the velocity ``noise - x_0``.

    The returned tensor is the output of ``out[2]``, a 3x3 convolution with bias: the layer that
    carries the Laplace posterior.
    """

    def __init__(self, config: SceneConfig):
        super().__init__()
        self.config = config
        widths, embedding = config.widths, 4 * config.widths[0]

        self.time = nn.Sequential(
            nn.Linear(widths[0], embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.label = nn.Embedding(config.n_labels * (config.null_label + 1), embedding)
        self.label_patch = nn.Embedding(config.null_label + 1, widths[0])

        self.inp = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, current = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(ResidualBlock(current, width, embedding))
                current = width
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)

        self.middle = nn.ModuleList(
            [
                ResidualBlock(current, current, embedding),
                SelfAttention(current),
                ResidualBlock(current, current, embedding),
            ]
        )

        for level, width in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                self.up.append(ResidualBlock(current + skips.pop(), width, embedding))
                current = width
            if level > 0:
                self.up.append(nn.Conv2d(width, width, 3, padding=1))

        self.out = nn.Sequential(
            nn.GroupNorm(8, current),
            nn.SiLU(),
            nn.Conv2d(current, config.channels, 3, padding=1),
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity (B, C, H, W) of images ``x`` (B, C, H, W) at times ``t`` (B,) in [0, 1].

        ``y`` (B, n_labels) holds the labels as integers, row by row of the grid.
        """
        embedding = F.silu(self.time(self._time_features(t)) + self._label_embedding(y))
        h = self.inp(x) + self._label_patches(y, x.shape[-2:])

        skips = [h]
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        first, attention, second = self.middle
        h = second(attention(first(h, embedding)), embedding)
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding)
            else:
                h = layer(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.out(h)

    def _time_features(self, t: Tensor) -> Tensor:
        half = self.config.widths[0] // 2
        octaves = torch.arange(half, device=t.device, dtype=torch.float32) / (half - 1)
        phase = t.float()[:, None] * torch.exp(octaves * math.log(1000.0))
        return torch.cat([phase.cos(), phase.sin()], dim=1).to(self.time[0].weight.dtype)

    def _label_embedding(self, y: Tensor) -> Tensor:
        cells = torch.arange(self.config.n_labels, device=y.device)
        return self.label(y + cells * (self.config.null_label + 1)).sum(dim=1)

    def _label_patches(self, y: Tensor, size: torch.Size) -> Tensor:
        rows, columns = self.config.label_grid
        patches = self.label_patch(y).transpose(1, 2).reshape(len(y), -1, rows, columns)
        return F.interpolate(patches, size=size, mode="nearest")
