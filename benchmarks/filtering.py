"""Throwing away the worst pictures by a score: what is gained over throwing some away at random.

The paper's Table 1 in miniature: 17% are dropped (10,000 of 60,000 there). Acceptance is the share
of what is kept that the oracle finds well formed; the Frechet distance is taken in the oracle's
features to held-out real pictures. Every drop keeps the same number, so that the distance's bias
with the number of pictures is the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from demo.evaluate import frechet_distance

__all__ = ["DROPPED", "Filter", "Kept", "PrincipalAxes"]

DROPPED = 0.17
RANDOM_DROPS = 20


@dataclass(frozen=True)
class PrincipalAxes:
    """The axes of real features that carry most of their variance.

    The covariance of a thousand pictures' features is close to singular: directions in which real
    pictures hardly vary carry noise of the estimate only, and their share of tr (AB)^(1/2) is
    biased. Distances are taken in the axes that carry `share` of the real variance.
    """

    mean: Tensor
    axes: Tensor

    @classmethod
    def of(cls, features: Tensor, share: float = 0.99) -> PrincipalAxes:
        """Of real features (N, F)."""
        mean = features.double().mean(0)
        values, vectors = torch.linalg.eigh((features.double() - mean).T.cov())
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        count = int((values.cumsum(0) < share * values.sum()).sum()) + 1
        return cls(mean, vectors[:, :count])

    def __call__(self, features: Tensor) -> Tensor:
        """Coordinates (N, K) of features (N, F)."""
        return (features.double() - self.mean) @ self.axes


@dataclass(frozen=True)
class Kept:
    """What is left: shares of accepted regions and whole pictures, and the Frechet distance."""

    regions: float
    scenes: float
    frechet: float


@dataclass(frozen=True)
class Filter:
    """Pictures with malformed regions (N, R) and features (N, R, F), and real features (M, F)."""

    malformed: Tensor
    features: Tensor
    held_out: Tensor
    axes: PrincipalAxes

    def keep(self, index: Tensor) -> Kept:
        good = ~self.malformed[index]
        distance = frechet_distance(
            self.axes(self.features[index].flatten(0, 1)), self.axes(self.held_out)
        )
        return Kept(good.float().mean().item(), good.all(1).float().mean().item(), float(distance))

    @property
    def count(self) -> int:
        """How many pictures every drop keeps."""
        return len(self.malformed) - round(DROPPED * len(self.malformed))

    def by_score(self, scores: Tensor) -> Kept:
        """Without the pictures with the highest scores (N,)."""
        return self.keep(scores.argsort(stable=True)[: self.count])

    def at_random(self, drops: int = RANDOM_DROPS) -> tuple[Kept, Kept]:
        """Mean and standard deviation over random drops."""
        found = []
        for seed in range(drops):
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(self.malformed), generator=generator)
            kept = self.keep(order[: self.count])
            found.append([kept.regions, kept.scenes, kept.frechet])
        values = torch.tensor(found, dtype=torch.float64)
        return Kept(*values.mean(0).tolist()), Kept(*values.std(0).tolist())
