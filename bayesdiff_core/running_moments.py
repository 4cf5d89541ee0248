"""Running moments (Welford 1962)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RunningMoments"]


class RunningMoments:
    """Running mean and variance of equally shaped tensors."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, value: Tensor) -> None:
        self.count += 1
        if self.mean is None or self.squares is None:
            self.mean, self.squares = value.clone(), torch.zeros_like(value)
            return
        difference = value - self.mean
        self.mean += difference / self.count
        self.squares += difference * (value - self.mean)

    def variance(self) -> Tensor:
        """Unbiased variance; zero before the second value."""
        if self.squares is None:
            raise ValueError("No value was added, so there is no variance.")
        return self.squares / max(self.count - 1, 1)
