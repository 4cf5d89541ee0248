"""Laplace approximation of the last layer in closed form.

Training a denoiser is least squares, so with noise variance s2 and prior N(0, 1 / lam) the
generalised Gauss-Newton matrix of F = W phi is exactly block diagonal with one block for all rows,

    A = (1 / s2) sum_n phi_n phi_n^T,      Sigma = (A + lam I)^-1,

and the predictive variance of an output is phi^T Sigma phi (Daxberger et al. 2021, section 2; Kou
et al. 2024, section 3.1, who use its diagonal and 100 weight draws instead).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

__all__ = ["FULL_LIMIT", "GaussNewton", "LaplacePosterior", "Structure", "choose_structure"]

Structure = Literal["full", "diag"]

FULL_LIMIT = 6000
"""Largest number of features D for which `full` is chosen: 6000^2 float32 numbers are 144 MB."""


def choose_structure(features: int, limit: int = FULL_LIMIT) -> Structure:
    """`full` while the D x D block stays small, `diag` beyond."""
    return "full" if features <= limit else "diag"


@dataclass
class GaussNewton:
    """Running sums of the generalised Gauss-Newton matrix; two of them add.

    `gram` is sum phi phi^T, (D, D) or its diagonal (D,), float64; `positions` counts the phi that
    went in, `residuals` the scalar residuals and `squared_error` the sum of their squares.
    """

    gram: Tensor
    positions: int = 0
    residuals: int = 0
    squared_error: float = 0.0

    @classmethod
    def zeros(
        cls, features: int, structure: Structure, device: torch.device | str = "cpu"
    ) -> GaussNewton:
        shape = (features, features) if structure == "full" else (features,)
        return cls(torch.zeros(shape, dtype=torch.float64, device=device))

    @property
    def structure(self) -> Structure:
        return "full" if self.gram.ndim == 2 else "diag"

    def update(self, pieces: Iterable[Tensor], residual: Tensor) -> None:
        """Add features phi (..., D), piece by piece, and the residuals of all their outputs.

        Raises ValueError when a residual is not finite or D is that of another layer.
        """
        squared_error = float(residual.double().square().sum())
        if not math.isfinite(squared_error):
            raise ValueError(
                "The network's output is not finite on these latents; check them for NaN or Inf."
            )
        for piece in pieces:
            phi = piece.flatten(0, -2).float()
            if phi.shape[-1] != self.gram.shape[0]:
                raise ValueError(f"Expected {self.gram.shape[0]} features, got {phi.shape[-1]}.")
            product = phi.T @ phi if self.structure == "full" else phi.square().sum(0)
            self.gram += product.to(self.gram.device)
            self.positions += len(phi)
        self.residuals += residual.numel()
        self.squared_error += squared_error

    def __add__(self, other: GaussNewton) -> GaussNewton:
        """The sums of both fits. Raises ValueError unless they are of one layer and structure."""
        if self.gram.shape != other.gram.shape:
            raise ValueError(
                f"Fits of shape {tuple(self.gram.shape)} and {tuple(other.gram.shape)} cannot be "
                "merged: use the same layer and the same structure for both."
            )
        return GaussNewton(
            self.gram + other.gram.to(self.gram.device),
            self.positions + other.positions,
            self.residuals + other.residuals,
            self.squared_error + other.squared_error,
        )

    @property
    def noise_variance(self) -> float:
        """Mean squared residual: the maximum-likelihood s2, in squared units of the output F."""
        if self.residuals == 0:
            raise ValueError("No data went into the fit, so there is no posterior to compute.")
        return max(self.squared_error / self.residuals, 1e-12)

    def posterior(
        self, weights: Tensor, prior_precision: float | None = None, fingerprint: str = ""
    ) -> LaplacePosterior:
        """Posterior around `weights` (R, D); the prior precision is chosen by evidence if None."""
        noise_variance = self.noise_variance
        precision = self.gram.double().cpu() / noise_variance
        eigenvalues = (
            torch.linalg.eigvalsh(precision) if self.structure == "full" else precision
        ).clamp(min=0)
        evidence = Evidence(
            eigenvalues, len(weights), float(weights.double().square().sum()),
            self.squared_error, noise_variance, self.residuals,
        )  # fmt: skip
        if prior_precision is None:
            prior_precision = evidence.best_prior_precision()
        return LaplacePosterior(
            precision=precision.float(),
            prior_precision=float(prior_precision),
            noise_variance=noise_variance,
            log_evidence=evidence(prior_precision),
            rows=len(weights),
            positions=self.positions,
            fingerprint=fingerprint,
        )


@dataclass(frozen=True)
class Evidence:
    """Log marginal likelihood of the linear-Gaussian last layer, as a function of lam."""

    eigenvalues: Tensor
    rows: int
    squared_norm: float
    squared_error: float
    noise_variance: float
    residuals: int

    def __call__(self, prior_precision: float) -> float:
        determinant = torch.log(self.eigenvalues + prior_precision).sum().item()
        features = len(self.eigenvalues)
        return (
            -0.5 * self.residuals * math.log(2 * math.pi * self.noise_variance)
            - 0.5 * self.squared_error / self.noise_variance
            - 0.5 * prior_precision * self.squared_norm
            - 0.5 * self.rows * (determinant - features * math.log(prior_precision))
        )

    def best_prior_precision(self) -> float:
        """MacKay's fixed point: lam = effective number of weights / squared norm."""
        if self.squared_norm == 0:
            return 1.0
        lam = 1.0
        for _ in range(200):
            effective = self.rows * (self.eigenvalues / (self.eigenvalues + lam)).sum().item()
            updated = min(max(effective / self.squared_norm, 1e-6), 1e12)
            if abs(updated - lam) < 1e-9 * lam:
                break
            lam = updated
        return lam


@dataclass
class LaplacePosterior:
    """Gaussian posterior of the last layer: every row of W is N(W_row, (precision + lam I)^-1).

    `precision` is the data part A in float32: (D, D) for `full`, (D,) for `diag`. `positions` is
    the number of feature vectors behind it and `fingerprint` names the layer it belongs to.
    """

    precision: Tensor
    prior_precision: float
    noise_variance: float
    rows: int
    positions: int
    log_evidence: float = math.nan
    fingerprint: str = ""
    _factors: dict[str, Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def structure(self) -> Structure:
        return "full" if self.precision.ndim == 2 else "diag"

    @property
    def features(self) -> int:
        return self.precision.shape[0]

    def factor(self, device: torch.device | str) -> Tensor:
        """L with Sigma = L L^T: (D, D) for `full`, the standard deviations (D,) for `diag`."""
        key = str(device)
        if key not in self._factors:
            self._factors[key] = self._compute_factor().to(device)
        return self._factors[key]

    def _compute_factor(self) -> Tensor:
        precision = self.precision.double()
        if self.structure == "diag":
            return (precision + self.prior_precision).rsqrt().float()
        # eigh and not Cholesky: in float32 the smallest eigenvalues may come out negative.
        eigenvalues, vectors = torch.linalg.eigh(precision)
        scale = (eigenvalues.clamp(min=0) + self.prior_precision).rsqrt()
        return (vectors * scale).float()

    def whiten(self, phi: Tensor) -> Tensor:
        """L^T phi for phi (..., D): inner products of the result are phi^T Sigma phi'."""
        if phi.shape[-1] != self.features:
            raise ValueError(
                f"The posterior has {self.features} features, this layer {phi.shape[-1]}: fit "
                "LaplaceFit on the model you sample with."
            )
        factor = self.factor(phi.device)
        return phi @ factor if self.structure == "full" else phi * factor

    def variance(self, phi: Tensor) -> Tensor:
        """Predictive variance phi^T Sigma phi of one output, (...,), in squared units of F."""
        return self.whiten(phi).square().sum(-1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` weight perturbations (count, R, D) from N(0, Sigma)."""
        shape = (count, self.rows, self.features)
        white = torch.randn(shape, generator=generator, device=generator.device)
        factor = self.factor(generator.device)
        return white @ factor.T if self.structure == "full" else white * factor
