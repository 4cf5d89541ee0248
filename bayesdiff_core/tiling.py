"""Copies of a batch, tile-major: row c * B + b of n copies of B samples is copy c of sample b."""

from __future__ import annotations

from torch import Tensor

from .map_checks import check_whole

__all__ = ["tile"]


def tile(tensor: Tensor, copies: int) -> Tensor:
    """`copies` of a batch (B, ...): (n * B, ...)."""
    check_whole(copies, "The number of copies", 1)
    return tensor if copies == 1 else tensor.repeat(copies, *[1] * (tensor.ndim - 1))
