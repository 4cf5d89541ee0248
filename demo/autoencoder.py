"""Autoencoder of `letters`: RGB pictures to latents of 16 channels at an eighth of the size.

The architecture and the names of the weights are those of TAESD (Bohan, 2023), which a host loads
by itself; this module needs no host. Every layer of that architecture has 64 channels. A narrower
network is the same function with its other channels zero (a ReLU keeps them zero), so it is
trained narrow, padded to 64 for the file, and cut to size again where it runs without a host.

Latents here are those the diffusion model sees: zero mean and unit variance in every channel. In
the file, `vae_shift` and `vae_scale` hold the affine map to the latents that a host passes around
for the format "SD3" (shift 0.0609, scale 1.5305).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Autoencoder", "cut", "pad"]

FULL_WIDTH = 64
SHIFT, SCALE = 0.0609, 1.5305


class Clamp(nn.Module):
    """Soft limit at -3 and 3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """Three 3x3 convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Autoencoder(nn.Module):
    """Encoder and decoder of `width` channels."""

    def __init__(self, width: int = FULL_WIDTH, latent_channels: int = 16) -> None:
        super().__init__()
        self.width, self.latent_channels = width, latent_channels
        self.taesd_encoder = nn.Sequential(
            _conv(3, width),
            Block(width),
            *(layer for _ in range(3) for layer in _down(width)),
            _conv(width, latent_channels),
        )
        self.taesd_decoder = nn.Sequential(
            Clamp(),
            _conv(latent_channels, width),
            nn.ReLU(),
            *(layer for _ in range(3) for layer in _up(width)),
            Block(width),
            _conv(width, 3),
        )
        self.register_buffer("vae_shift", torch.tensor(SHIFT))
        self.register_buffer("vae_scale", torch.tensor(SCALE))

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, 16, H/8, W/8) of images (B, 3, H, W) in [-1, 1]."""
        return self.taesd_encoder(images / 2 + 0.5)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), mostly in [-1, 1], of latents (B, 16, H/8, W/8)."""
        return self.taesd_decoder(latents) * 2 - 1


def pad(weights: dict[str, Tensor], width: int = FULL_WIDTH) -> dict[str, Tensor]:
    """A narrow network's weights as those of the same function at `width` channels."""
    return _at_width(weights, width)


def cut(weights: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """The inverse of `pad`.

    Raises:
        ValueError: If the narrow network would be another function.
    """
    small = _at_width(weights, width)
    back = _at_width(small, _width(weights))
    if any(not torch.equal(tensor, back[name]) for name, tensor in weights.items()):
        raise ValueError(f"These weights use more than {width} channels; load them at full width.")
    return small


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


def _down(width: int) -> list[nn.Module]:
    return [_conv(width, width, 2, bias=False), Block(width), Block(width), Block(width)]


def _up(width: int) -> list[nn.Module]:
    enlarge = [nn.Upsample(scale_factor=2), _conv(width, width, bias=False)]
    return [Block(width), Block(width), Block(width), *enlarge]


def _width(weights: dict[str, Tensor]) -> int:
    return len(weights["taesd_encoder.0.weight"])


def _at_width(weights: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    now = _width(weights)
    return {
        name: _resized(tensor, [width if size == now else size for size in tensor.shape])
        for name, tensor in weights.items()
    }


def _resized(tensor: Tensor, shape: list[int]) -> Tensor:
    """The tensor cut, or filled up with zeros, at the end of every dimension."""
    result = tensor.new_zeros(shape)
    common = tuple(slice(min(a, b)) for a, b in zip(tensor.shape, shape, strict=True))
    result[common] = tensor[common]
    return result
