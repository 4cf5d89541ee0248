"""Orthogonal patterns over channels, by which few shifts of a latent stand for all its channels.

For K rows r_i of signs, orthogonal to each other, and any d over C channels,

    mean over i of (r_i . d)^2  estimates  |d|^2

without bias over the signs of d. Where K reaches C, the unit vectors make it exact. The signs are
the rows of Sylvester's Hadamard matrices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["channel_patterns", "hadamard", "sign_patterns"]


def hadamard(size: int) -> Tensor:
    """Sylvester's Hadamard matrix H with H H^T = n I, of the least power of two n >= `size`.

    Returns:
        1 and -1, float32, shape (n, n). Row 0 has equal signs; the next ones differ most between
        neighbouring columns.
    """
    signs = torch.ones(1, 1)
    while len(signs) < size:
        top = torch.cat((signs, signs), dim=1)
        signs = torch.cat((top, torch.cat((signs, -signs), dim=1)))
    return signs


def sign_patterns(channels: int, patterns: int) -> tuple[Tensor, float]:
    """Shifts of full size, and the weight of each in the mean of squares.

    Arguments:
        channels: C.
        patterns: How many at most.

    Returns:
        Patterns r, shape (K, C), and w with sum_i w (r_i . d)^2 for |d|^2: K orthogonal rows of
        signs with w = 1 / K, or the C unit vectors with w = 1 where `patterns` reaches C.
    """
    if channels <= patterns:
        return torch.eye(channels), 1.0
    return hadamard(channels)[:patterns, :channels].contiguous(), 1.0 / patterns


def channel_patterns(channels: int, patterns: int) -> Tensor:
    """The same with the weights in the rows: sum_i (r_i . d)^2 estimates |d|^2.

    Arguments:
        channels: C.
        patterns: How many at most.

    Returns:
        Patterns r, shape (K, C) with K = min(C, `patterns`).
    """
    if channels <= patterns:
        return torch.eye(channels)
    return hadamard(channels)[:patterns, :channels] / math.sqrt(patterns)
