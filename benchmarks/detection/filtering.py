"""Filtering: what dropping the worst images by a score gains over dropping some at random.

The paper's Table 1 in miniature: 17% are dropped (10,000 of 60,000 there). Acceptance is the share
of what is kept that the oracle finds well formed; the Frechet distance is taken in the oracle's
features to held-out real pictures. Every drop keeps the same number, so that the distance's bias
with the number of pictures is the same for all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from demo.evaluate import frechet_distance

from ..experiment import Results
from ..oracle_truth import Judge
from .table import Table

__all__ = [
    "DROPPED",
    "RANDOM_DROPS",
    "Filter",
    "Kept",
    "PrincipalAxes",
    "filter_rows",
    "filtering_axes",
]

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


def filtering_axes(judge: Judge) -> tuple[PrincipalAxes, Results]:
    """The axes in which distances are taken, and the distance of real parts to held-out ones."""
    held_out, training = judge.real_features
    axes = PrincipalAxes.of(training)
    everything = Filter(
        torch.zeros(len(training), 1, dtype=torch.bool), training[:, None], held_out, axes
    ).keep(torch.arange(len(training)))
    return axes, {
        "axes": axes.axes.shape[1],
        "dropped": DROPPED,
        "random_drops": RANDOM_DROPS,
        "real_to_real": everything.frechet,
    }


def oracle_score(table: Table) -> Tensor:
    """(N,) the upper bound: malformed regions first, then the oracle's doubt."""
    return table.truth("category").sum(1) + table.score("oracle", "mean").mean(1)


def filter_rows(
    table: Table, features: Tensor, judge: Judge, axes: PrincipalAxes, scores: dict[str, Tensor]
) -> Results:
    """What is left when the images of a table are dropped by each of the scores (N,)."""
    images = Filter(table.truth("category"), features, judge.real_features[0], axes)
    mean, deviation = images.at_random()
    rows = {
        "nothing dropped": asdict(images.keep(torch.arange(len(images.malformed)))),
        "at random": {**asdict(mean), "deviation": asdict(deviation)},
        **{name: asdict(images.by_score(values)) for name, values in scores.items()},
        "oracle": asdict(images.by_score(oracle_score(table))),
    }
    return {"scenes": len(images.malformed), "kept": images.count, "rows": rows}
