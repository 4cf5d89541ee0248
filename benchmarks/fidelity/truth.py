"""Brute force: per-pixel standard deviations over whole runs with weights from the posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdiff_core.methods import Ensemble

from ..cache import cached
from ..metrics import partial_spearman, spearman
from ..models import Setting

__all__ = ["Cell", "Truth", "per_pixel_std", "truth_for"]


@dataclass(frozen=True)
class Cell:
    """Batches of one model, sampler and guidance scale; they differ in their seed alone."""

    batches: tuple[Setting, ...]

    @property
    def setting(self) -> Setting:
        return self.batches[0]

    @property
    def images(self) -> int:
        return sum(batch.count for batch in self.batches)


@dataclass(frozen=True)
class Truth:
    """Per-pixel std (B, H, W) of the Bayesian model average, in two independent halves."""

    halves: tuple[Tensor, Tensor]
    images: Tensor

    @property
    def std(self) -> Tensor:
        return ((self.halves[0].square() + self.halves[1].square()) / 2).sqrt()

    def ceiling(self, compare: Callable[[Tensor, Tensor], Tensor]) -> float:
        """Largest correlation a perfect method can show: the root of the truth's reliability.

        Split-half reliability r, corrected to full length by Spearman-Brown: 2 r / (1 + r).
        """
        half = compare(*self.halves).mean().clamp(min=0)
        return (2 * half / (1 + half)).sqrt().item()

    @property
    def ceilings(self) -> tuple[float, float]:
        """Of Spearman and of partial Spearman."""
        images = self.images
        return self.ceiling(spearman), self.ceiling(lambda a, b: partial_spearman(a, b, images))


def truth_for(cell: Cell, members: int) -> Truth:
    """All batches' truth, in two halves of `members` / 2 runs each; cached batch by batch."""
    stored = [batch_truth(setting, members) for setting in cell.batches]
    first, second, images = (
        torch.cat([truth[name] for truth in stored]) for name in ("first", "second", "images")
    )
    return Truth((first, second), images)


def batch_truth(setting: Setting, members: int) -> dict[str, Tensor]:
    posterior = setting.posterior
    seeds = (2 * setting.seed + 1001, 2 * setting.seed + 1002)

    def compute() -> dict[str, Tensor]:
        # A fresh process each time: a second run of the same one would draw other solver noise.
        results = [
            Ensemble(members // 2, seed=s).sample(setting.process(), posterior) for s in seeds
        ]
        first, second = (per_pixel_std(result.variance) for result in results)
        return {"first": first, "second": second, "images": results[0].latent}

    # Rounded, since the order of a sum changes the last digits of the precision.
    prior = f"{posterior.prior_precision:.4g}"
    identity = (setting, posterior.fingerprint, prior, members)
    return cached(f"truth 3 {identity}", compute)


def per_pixel_std(variance: Tensor) -> Tensor:
    """Root mean square over channels: (B, C, H, W) to (B, H, W)."""
    return variance.mean(1).sqrt()
