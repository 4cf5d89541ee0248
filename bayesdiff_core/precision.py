"""Precision matrices of the last layer's weights, with all correlations or with none.

Both structures store the data part A (D, D) of the posterior precision and share one factorisation

    (A + lam I)^-1 = L L^T,

from which variances (L^T phi) and weight draws (L u) follow. `FullPrecision` keeps A whole,
`DiagonalPrecision` its diagonal alone, as Kou et al. (2024, section 3.1) do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

__all__ = [
    "FULL_LIMIT",
    "STRUCTURES",
    "DiagonalPrecision",
    "FullPrecision",
    "Precision",
    "Structure",
    "check_precision",
    "choose_structure",
    "structured",
]

Structure = Literal["full", "diag"]

FULL_LIMIT = 6000
"""Largest number of features D for which `full` is chosen: 6000^2 float32 numbers are 144 MB."""


class Precision(Protocol):
    """A positive semi-definite matrix A (D, D), stored as its structure needs in `values`.

    Factors L are tensors in the same storage; `whiten` and `color` multiply by them.
    """

    name: ClassVar[Structure]

    @property
    def values(self) -> Tensor:
        """(D, D) or (D,)."""

    @classmethod
    def zeros(cls, features: int, device: torch.device | str = "cpu") -> Precision:
        """A = 0 for D = `features`, float64."""

    def add(self, phi: Tensor) -> None:
        """Adds sum_n phi_n phi_n^T of phi (N, D) to A, in place."""

    def eigenvalues(self) -> Tensor:
        """Eigenvalues (D,) of A; rounding may leave the smallest ones negative."""

    def factor(self, prior_precision: float) -> Tensor:
        """L with L L^T = (A + lam I)^-1, float32, computed in float64."""

    @staticmethod
    def whiten(phi: Tensor, factor: Tensor) -> Tensor:
        """L^T phi for phi (..., D)."""

    @staticmethod
    def color(white: Tensor, factor: Tensor) -> Tensor:
        """L u for standard normal u (..., D)."""


@dataclass(frozen=True)
class FullPrecision:
    """A with all its correlations: `values` are (D, D). See `Precision` for the methods."""

    values: Tensor
    name: ClassVar[Structure] = "full"

    @classmethod
    def zeros(cls, features: int, device: torch.device | str = "cpu") -> FullPrecision:
        return cls(torch.zeros(features, features, dtype=torch.float64, device=device))

    def add(self, phi: Tensor) -> None:
        self.values.add_((phi.T @ phi).to(self.values.device))

    def eigenvalues(self) -> Tensor:
        return torch.linalg.eigvalsh(self.values)

    def factor(self, prior_precision: float) -> Tensor:
        # eigh and not Cholesky: in float32 the smallest eigenvalues may come out negative.
        eigenvalues, vectors = torch.linalg.eigh(self.values.double())
        scale = (eigenvalues.clamp(min=0) + prior_precision).rsqrt()
        return (vectors * scale).float()

    @staticmethod
    def whiten(phi: Tensor, factor: Tensor) -> Tensor:
        return phi @ factor

    @staticmethod
    def color(white: Tensor, factor: Tensor) -> Tensor:
        return white @ factor.T


@dataclass(frozen=True)
class DiagonalPrecision:
    """The diagonal of A alone: `values` are (D,). See `Precision` for the methods."""

    values: Tensor
    name: ClassVar[Structure] = "diag"

    @classmethod
    def zeros(cls, features: int, device: torch.device | str = "cpu") -> DiagonalPrecision:
        return cls(torch.zeros(features, dtype=torch.float64, device=device))

    def add(self, phi: Tensor) -> None:
        self.values.add_(phi.square().sum(0).to(self.values.device))

    def eigenvalues(self) -> Tensor:
        return self.values

    def factor(self, prior_precision: float) -> Tensor:
        return (self.values.double() + prior_precision).rsqrt().float()

    @staticmethod
    def whiten(phi: Tensor, factor: Tensor) -> Tensor:
        return phi * factor

    @staticmethod
    def color(white: Tensor, factor: Tensor) -> Tensor:
        return white * factor


STRUCTURES: dict[Structure, type[FullPrecision] | type[DiagonalPrecision]] = {
    "full": FullPrecision,
    "diag": DiagonalPrecision,
}


def structured(values: Tensor) -> Precision:
    """The precision stored as `values`, with the structure that their shape says.

    Arguments:
        values: A, shape (D, D), or its diagonal, shape (D,). The result shares its memory.
    """
    return FullPrecision(values) if values.ndim == 2 else DiagonalPrecision(values)


def choose_structure(features: int) -> Structure:
    """`full` while the (D, D) matrix stays small, `diag` above `FULL_LIMIT` features."""
    return "full" if features <= FULL_LIMIT else "diag"


def check_precision(values: Tensor) -> None:
    """Refuses numbers that are no precision matrix of a fit.

    Of a positive semi-definite matrix it looks at what costs D^2: no principal minor of one or two
    rows is negative, within the rounding of float32 sums.

    Arguments:
        values: A, shape (D, D), or its diagonal, shape (D,).

    Raises:
        ValueError: Unless they are float32, finite, of such a shape, symmetric, with a diagonal
            that is not negative and not all zero, and correlations of at most one.
    """
    if values.dtype != torch.float32:
        raise ValueError(f"The precision is in {values.dtype}, not in float32.")
    shape = tuple(values.shape)
    if len(shape) not in (1, 2) or shape[0] != shape[-1] or not shape[0]:
        raise ValueError(f"The precision has the shape {shape}, not (D,) or (D, D).")
    if not all(math.isfinite(limit) for limit in values.aminmax()):
        raise ValueError("The precision has NaN or Inf in it.")
    diagonal = values if values.ndim == 1 else values.diagonal()
    if diagonal.min() < 0 or diagonal.max() <= 0:
        raise ValueError("The precision is not positive.")
    if values.ndim == 2:
        _check_correlations(values)


def _check_correlations(values: Tensor) -> None:
    """Whether |A_ij| <= sqrt(A_ii A_jj) and A_ij = A_ji, some rows (512, D) at a time.

    Sums of products in float32 keep both to about 1e-6; a product of tiny features may be rounded
    to zero on the diagonal alone, which is harmless beside the largest number there.
    """
    root = values.diagonal().sqrt()
    slack = 1e-6 * root.max().square()
    for start in range(0, len(values), 512):
        rows = slice(start, start + 512)
        bound = root[rows, None] * root
        if ((values[rows] - values[:, rows].T).abs() > 1e-3 * bound + slack).any():
            raise ValueError("The precision is not symmetric.")
        if (values[rows].abs() > 1.001 * bound + slack).any():
            raise ValueError("The precision is not positive.")
