"""Laplace approximation of the last layer in closed form.

Training a denoiser is least squares, so with noise variance s2 and prior N(0, 1 / lam) the
generalised Gauss-Newton matrix of F = W phi is exactly block diagonal with one block for all rows,

    A = (1 / s2) sum_n phi_n phi_n^T,      Sigma = (A + lam I)^-1,

and the predictive variance of an output is phi^T Sigma phi (Daxberger et al. 2021, section 2; Kou
et al. 2024, section 3.1, who use its diagonal and 100 weight draws instead).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .map_checks import check_whole
from .precision import STRUCTURES, Structure, check_precision, structured

__all__ = ["Evidence", "GaussNewton", "LaplacePosterior"]

PRIOR_PRECISIONS = (1e-6, 1e12)
"""The range in which the prior precision is chosen."""


@dataclass
class GaussNewton:
    """Running sums of the generalised Gauss-Newton matrix; two of them add.

    Attributes:
        gram: Sum of phi phi^T over all positions, (D, D) or its diagonal (D,), float64.
        positions: Number of the feature vectors phi that went in.
        residuals: Number of the scalar residuals F - F* that went in.
        squared_error: Sum of their squares, in squared units of the output F.
    """

    gram: Tensor
    positions: int = 0
    residuals: int = 0
    squared_error: float = 0.0

    @classmethod
    def zeros(
        cls, features: int, structure: Structure, device: torch.device | str = "cpu"
    ) -> GaussNewton:
        """Empty sums.

        Arguments:
            features: Number D of features, the bias included.
            structure: `full` or `diag`.
            device: Where the sums are kept; it needs double precision.
        """
        return cls(STRUCTURES[structure].zeros(features, device).values)

    @property
    def structure(self) -> Structure:
        """`full` or `diag`."""
        return structured(self.gram).name

    def update(self, pieces: Iterable[Tensor], residual: Tensor) -> None:
        """Adds the features and the residuals of one forward pass.

        Arguments:
            pieces: Features phi (..., D), some positions at a time.
            residual: F - F* of all their outputs, any shape.

        Raises:
            ValueError: If a residual is not finite, or D is that of another layer.
        """
        squared_error = float(residual.double().square().sum())
        if not math.isfinite(squared_error):
            raise ValueError(
                "The network's output is not finite on these latents; check them for NaN or Inf."
            )
        gram = structured(self.gram)
        for piece in pieces:
            phi = piece.flatten(0, -2).float()
            if phi.shape[-1] != self.gram.shape[0]:
                raise ValueError(f"Expected {self.gram.shape[0]} features, got {phi.shape[-1]}.")
            gram.add(phi)
            self.positions += len(phi)
        self.residuals += residual.numel()
        self.squared_error += squared_error

    def __add__(self, other: GaussNewton) -> GaussNewton:
        """The sums of both fits.

        Raises:
            ValueError: Unless both are of one layer and structure.
        """
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
        """Mean squared residual: the maximum-likelihood s2, in squared units of the output F.

        Raises:
            ValueError: If nothing went into the fit.
        """
        if self.residuals == 0:
            raise ValueError("No data went into the fit, so there is no posterior to compute.")
        return max(self.squared_error / self.residuals, 1e-12)

    def posterior(
        self, weights: Tensor, prior_precision: float | None = None, fingerprint: str = ""
    ) -> LaplacePosterior:
        """The Laplace posterior around the trained weights.

        Arguments:
            weights: Of the last layer, shape (R, D), the bias as last column.
            prior_precision: lam; None takes the one with the largest evidence.
            fingerprint: Of the layer, see `last_layer.fingerprint`.

        Raises:
            ValueError: If nothing went into the fit.
        """
        noise_variance = self.noise_variance
        precision = structured(self.gram.double().cpu() / noise_variance)
        evidence = Evidence(
            eigenvalues=precision.eigenvalues().clamp(min=0),
            rows=len(weights),
            squared_norm=float(weights.double().square().sum()),
            squared_error=self.squared_error,
            noise_variance=noise_variance,
            residuals=self.residuals,
        )
        if prior_precision is None:
            prior_precision = evidence.best_prior_precision()
        return LaplacePosterior(
            precision=precision.values.float(),
            prior_precision=float(prior_precision),
            noise_variance=noise_variance,
            log_evidence=evidence(prior_precision),
            rows=len(weights),
            positions=self.positions,
            fingerprint=fingerprint,
        )


@dataclass(frozen=True)
class Evidence:
    """Log marginal likelihood of the linear Gaussian last layer, as a function of lam.

    Attributes:
        eigenvalues: e_i of the data precision A, shape (D,), none negative.
        rows: Number R of the layer's outputs; each has D weights and the same A.
        squared_norm: |W|^2, the sum of squares of all trained weights.
        squared_error: E, the sum of squared residuals.
        noise_variance: s2, in squared units of the output F.
        residuals: Number N of the residuals.
    """

    eigenvalues: Tensor
    rows: int
    squared_norm: float
    squared_error: float
    noise_variance: float
    residuals: int

    def __call__(self, prior_precision: float) -> float:
        """Log evidence at the prior precision lam (MacKay 1992, "Bayesian interpolation").

            log p = - N/2 log(2 pi s2) - E / (2 s2) - lam/2 |W|^2
                    - R/2 (sum_i log(e_i + lam) - D log lam)

        It is exact for a model that is linear in its weights with Gaussian noise and prior, and
        Laplace's approximation otherwise.

        Arguments:
            prior_precision: lam > 0, one over the prior variance of a weight.

        Returns:
            The log marginal likelihood of all residuals, in nats.
        """
        determinant = torch.log(self.eigenvalues + prior_precision).sum().item()
        features = len(self.eigenvalues)
        return (
            -0.5 * self.residuals * math.log(2 * math.pi * self.noise_variance)
            - 0.5 * self.squared_error / self.noise_variance
            - 0.5 * prior_precision * self.squared_norm
            - 0.5 * self.rows * (determinant - features * math.log(prior_precision))
        )

    def best_prior_precision(self) -> float:
        """The lam with the largest evidence, by MacKay's fixed point (1992, see `__call__`).

            gamma = R sum_i e_i / (e_i + lam),      lam = gamma / |W|^2

        gamma is the effective number of weights, those that the data determine. At the fixed
        point the derivative of the log evidence by lam is zero.

        Returns:
            lam in [1e-6, 1e12]; 1 where all weights are zero.
        """
        if self.squared_norm == 0:
            return 1.0
        lam = 1.0
        lowest, highest = PRIOR_PRECISIONS
        for _ in range(200):
            effective = self.rows * (self.eigenvalues / (self.eigenvalues + lam)).sum().item()
            updated = min(max(effective / self.squared_norm, lowest), highest)
            if abs(updated - lam) < 1e-9 * lam:
                break
            lam = updated
        return lam


@dataclass
class LaplacePosterior:
    """Gaussian posterior of the last layer: every row of W is N(W_row, (A + lam I)^-1).

    Attributes:
        precision: The data part A, float32: (D, D) for `full`, (D,) for `diag`.
        prior_precision: lam.
        noise_variance: s2, in squared units of the layer's output F.
        rows: Number R of the layer's outputs.
        positions: Number of the feature vectors behind A.
        log_evidence: Log marginal likelihood at lam, in nats.
        fingerprint: Of the layer that the posterior belongs to.
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
        """`full` or `diag`."""
        return structured(self.precision).name

    @property
    def features(self) -> int:
        """Number D of features, the bias included."""
        return self.precision.shape[0]

    def check(self) -> None:
        """Refuses a posterior that no fit gives, field by field.

        Raises:
            ValueError: If a field has another type or lies outside of any range that makes sense,
                or the precision is none, see `check_precision`.
        """
        lowest, highest = PRIOR_PRECISIONS
        _check_number("prior precision", self.prior_precision, lowest / 1e3, highest * 1e3)
        _check_number("noise variance", self.noise_variance, 1e-15, 1e15)
        _check_number("number of rows", self.rows, 1, 2**31, int)
        _check_number("number of positions", self.positions, 1, 2**63, int)
        if not (isinstance(self.log_evidence, float) and math.isnan(self.log_evidence)):
            _check_number("log evidence", self.log_evidence, -1e300, 1e300)
        if not isinstance(self.fingerprint, str) or len(self.fingerprint) > 1000:
            raise ValueError("The fingerprint is no short text.")
        if not self.fingerprint.isprintable():
            raise ValueError("The fingerprint has characters that no name of a layer has.")
        check_precision(self.precision)
        layer = re.search(r":(\d{1,9})x(\d{1,9}):", self.fingerprint)
        if layer and (int(layer[1]), int(layer[2])) != (self.rows, self.features):
            raise ValueError(
                f"It is of {self.rows} outputs of {self.features} features, but its layer has "
                f"{layer[1]} outputs of {layer[2]} features."
            )

    def factor(self, device: torch.device | str) -> Tensor:
        """L with Sigma = L L^T, float32, computed once for each device.

        Returns:
            (D, D) for `full`, the standard deviations (D,) for `diag`, in the weights' unit.
        """
        key = str(device)
        if key not in self._factors:
            factor = structured(self.precision).factor(self.prior_precision)
            self._factors[key] = factor.to(device)
        return self._factors[key]

    def whiten(self, phi: Tensor) -> Tensor:
        """Features in which the posterior covariance is the identity.

        Arguments:
            phi: Shape (..., D).

        Returns:
            L^T phi, shape (..., D): inner products of two of them are phi^T Sigma phi'.

        Raises:
            ValueError: If phi has another number of features than the posterior.
        """
        if phi.shape[-1] != self.features:
            raise ValueError(
                f"The posterior has {self.features} features, this layer {phi.shape[-1]}: fit "
                "LaplaceFit on the model you sample with."
            )
        return structured(self.precision).whiten(phi, self.factor(phi.device))

    def variance(self, phi: Tensor) -> Tensor:
        """Predictive variance phi^T Sigma phi of one output, in squared units of F.

        Arguments:
            phi: Features, shape (..., D).

        Returns:
            Shape (...,).

        Raises:
            ValueError: If phi has another number of features than the posterior.
        """
        return self.whiten(phi).square().sum(-1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Weight perturbations from N(0, Sigma).

        Arguments:
            count: Number of draws.
            generator: Of the standard normal numbers; the draws lie on its device.

        Returns:
            Shape (count, R, D), in the unit of the weights.
        """
        check_whole(count, "The number of draws")
        shape = (count, self.rows, self.features)
        white = torch.randn(shape, generator=generator, device=generator.device)
        return structured(self.precision).color(white, self.factor(generator.device))


def _check_number(
    name: str, value: object, lowest: float, highest: float, kind: type = float
) -> None:
    """Refuses what is no number of that kind in that range; an int may stand for a float."""
    if not isinstance(value, int if kind is int else (int, float)) or isinstance(value, bool):
        raise ValueError(f"The {name} is no {'whole ' if kind is int else ''}number.")
    if not lowest <= value <= highest:
        raise ValueError(f"The {name} does not lie between {lowest:g} and {highest:g}.")
