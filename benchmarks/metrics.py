"""Agreement of uncertainty maps, corrected for what the image content alone explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

__all__ = [
    "Interval",
    "auroc",
    "bootstrap",
    "content",
    "gradient_magnitude",
    "partial_spearman",
    "pearson",
    "residual",
    "spearman",
]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def signed(self) -> str:
        """As text, for a difference: with the sign before every figure."""
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def bootstrap(values: Tensor | np.ndarray, repetitions: int = 1000, seed: int = 0) -> Interval:
    """Mean over images and its 95% interval by resampling them."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    index = np.random.default_rng(seed).integers(len(values), size=(repetitions, len(values)))
    low, high = np.percentile(values[index].mean(1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation of every pair of maps (B, ...): (B,)."""
    return pearson(ranks(a), ranks(b))


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of every pair of maps (B, ...): (B,). A constant map correlates with nothing."""
    a, b = (m.flatten(1).double() for m in (a, b))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-30)


def partial_spearman(a: Tensor, b: Tensor, images: Tensor) -> Tensor:
    """Rank correlation (B,) of maps (B, H, W) once content is regressed out of both sides.

    Content (see `content`) explains part of any map; what is left of the ranks after a
    least-squares fit on it is compared.
    """
    covariates = content(images).double()
    return pearson(residual(ranks(a), covariates), residual(ranks(b), covariates))


def content(images: Tensor) -> Tensor:
    """Covariates (B, F, H * W) of images (B, C, H, W): 1, intensity, its square, gradient
    magnitude, and the 3x3 means of intensity and gradient."""
    grey = images.float().mean(1, keepdim=True)
    gradient = gradient_magnitude(images)[:, None]
    local = [functional.avg_pool2d(m, 3, 1, 1, count_include_pad=False) for m in (grey, gradient)]
    stack = [torch.ones_like(grey), grey, grey.square(), gradient, *local]
    return torch.cat(stack, 1).flatten(2)


def gradient_magnitude(images: Tensor) -> Tensor:
    """Length of the central-difference gradient (B, H, W), root mean square over channels."""
    padded = functional.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return (dx.square() + dy.square()).mean(1).sqrt()


def residual(values: Tensor, covariates: Tensor) -> Tensor:
    """What is left of values (B, N) after least squares on covariates (B, F, N)."""
    design = covariates.transpose(1, 2)
    # The Gram matrix is singular where an image is flat; the pseudo-inverse takes that.
    gram = covariates @ design
    solution = torch.linalg.pinv(gram, hermitian=True) @ (covariates @ values[..., None])
    return values - (design @ solution)[..., 0]


def ranks(maps: Tensor) -> Tensor:
    """Average ranks of the flattened maps (B, N), float64."""
    return torch.from_numpy(stats.rankdata(maps.flatten(1).double().numpy(), axis=1))


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Probability that a positive scores above a negative (ties count half)."""
    scores, positive = scores.flatten().double(), positive.flatten().bool()
    order = torch.from_numpy(stats.rankdata(scores.numpy()))
    count = int(positive.sum())
    if count in (0, len(scores)):
        return float("nan")
    rank_sum = order[positive].sum().item()
    return (rank_sum - count * (count + 1) / 2) / (count * (len(scores) - count))
