"""Ground truth: which parts of a generated picture do not show what was asked, by an oracle.

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
from demo.letters import FONTS, HELD_OUT_FONTS, letter_batches
from demo.oracle import Oracle, load_oracle, quadrants

__all__ = ["Judge", "load_judge"]

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
        parts = self.parts(latents)
        features = self.oracle.features(parts.flatten(0, 1))
        found = self.oracle.head(features).softmax(-1).unflatten(0, labels.shape)
        probability = found.gather(-1, labels[..., None])[..., 0]
        return probability, features.unflatten(0, parts.shape[:2])

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
    """The judge of a bundled model. Raises ValueError for a model that has none."""
    oracle = load_oracle(model)
    if model == "digits":
        return Judge(
            oracle, 4, lambda x: x,
            lambda: data.digits().split()[1].images, lambda: data.digits().split()[0].images,
        )  # fmt: skip
    if model == "letters":
        decode = load_decoder(model)
        return Judge(
            oracle, 4, decode, lambda: letter_tiles(HELD_OUT_FONTS), lambda: letter_tiles(FONTS)
        )
    if model == "emoji":
        return Judge(
            oracle, 1, lambda x: x,
            lambda: data.emoji().split()[1].images, lambda: data.emoji().split()[0].images,
        )  # fmt: skip
    raise ValueError(f"There is no judge for the model '{model}'; write one in this module.")


def letter_tiles(fonts: tuple[str, ...]) -> Tensor:
    """Real quadrants (1000, 3, 64, 64) of scenes drawn with these fonts."""
    scenes, _ = letter_batches(fonts)(250, torch.Generator().manual_seed(0))
    return quadrants(scenes).flatten(0, 1)
