"""Ground truth by an oracle: which parts of a generated image do not show what was asked for.

The oracles saw real pictures only. A part is malformed where the probability of what was asked is
at most one half. Where the oracle is weak (emoji: 74.7% on real ones) a second truth asks how far
the picture's features lie from those of any real training picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from demo import data
from demo.bundle import load_decoder
from demo.letters import FONTS, HELD_OUT_FONTS, letter_tiles
from demo.oracle import Oracle, load_oracle
from demo.scene import quadrants

__all__ = ["FARTHEST", "Judge", "load_judge"]

FARTHEST = 0.1
"""Share of the pictures, those farthest from any real one, that count as suspect."""


@dataclass(frozen=True)
class Judge:
    """Judges the `regions` parts of a picture: four quadrants, or the whole.

    `decode` makes pictures (B, C, H, W) in [-1, 1] of what was sampled; `held_out` and `training`
    return real parts (N, C, h, w).
    """

    oracle: Oracle
    regions: int
    decode: Callable[[Tensor], Tensor]
    held_out: Callable[[], Tensor]
    training: Callable[[], Tensor]

    def split(self, maps: Tensor) -> Tensor:
        """Values (B, R, n) of maps (B, H, W) in each region."""
        if self.regions == 1:
            return maps.flatten(1)[:, None]
        return quadrants(maps[:, None]).flatten(2)

    def parts(self, latents: Tensor) -> Tensor:
        """Pictures (B, R, C, h, w) of the regions of what was sampled (B, C', H', W')."""
        pictures = self.decode(latents).clamp(-1, 1)
        return quadrants(pictures) if self.regions == 4 else pictures[:, None]

    @torch.no_grad()
    def look(self, latents: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Probability (B, R) that each region shows its label (B, R), and features (B, R, F)."""
        features = self.features(latents)
        found = self.oracle.head(features.flatten(0, 1)).softmax(-1).unflatten(0, labels.shape)
        return found.gather(-1, labels[..., None])[..., 0], features

    def malformed(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Which regions (B, R) do not show their label."""
        return self.look(latents, labels)[0] <= 0.5

    @torch.no_grad()
    def features(self, latents: Tensor) -> Tensor:
        """The oracle's features (B, R, F) of every region."""
        parts = self.parts(latents)
        return self.oracle.features(parts.flatten(0, 1)).unflatten(0, parts.shape[:2])

    @cached_property
    def real_features(self) -> tuple[Tensor, Tensor]:
        """Features (N, F) of held-out and of training parts."""
        with torch.no_grad():
            return self.oracle.features(self.held_out()), self.oracle.features(self.training())

    def distance(self, features: Tensor) -> Tensor:
        """Distance of features (..., F) to those of the nearest real training part."""
        reference = self.real_features[1]
        return torch.cdist(features.flatten(0, -2), reference).amin(1).view(features.shape[:-1])


@lru_cache
def load_judge(model: str) -> Judge:
    """The judge of a bundled model.

    Raises:
        ValueError: The model has none.
    """
    oracle = load_oracle(model)
    if model == "letters":
        return Judge(
            oracle,
            4,
            load_decoder(model),
            lambda: letter_tiles(HELD_OUT_FONTS, 250, 0).images,
            lambda: letter_tiles(FONTS, 250, 0).images,
        )
    sources = {"digits": (data.digits, 4), "emoji": (data.emoji, 1)}
    if model not in sources:
        raise ValueError(f"There is no judge for the model '{model}'; write one in this module.")
    images, regions = sources[model]
    return Judge(
        oracle,
        regions,
        lambda latents: latents,
        lambda: images().split()[1].images,
        lambda: images().split()[0].images,
    )
