"""Last-layer features phi (N, P, D) of one evaluation, computed piece by piece to bound memory.

A 3x3 convolution's features repeat its input nine times: 190 MB an image at SDXL's 1024 x 1024
pixels, where the input takes 21 MB. The methods ask for predictive variances and means, which are
computed over a few positions at a time, and for outputs under other weights, which is the layer's
own operation on its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .laplace import LaplacePosterior
from .last_layer import LastLayer

__all__ = ["PIECE_BYTES", "Features"]

PIECE_BYTES = 16 << 20
"""Size of the features that are unfolded at a time."""


@dataclass(frozen=True)
class Features:
    """Features phi (N, P, D) as a sum of terms, each of one input of the layer.

    Guidance, areas and masks combine the features of several calls linearly, position by position:
    features add, `weighted` multiplies them, `at` chooses positions.
    """

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, layer: LastLayer, activation: Tensor, positions: Tensor | None = None) -> Features:
        """Features of one input of the layer.

        Arguments:
            layer: The last layer.
            activation: Its input, as in `LastLayer.features`.
            positions: Indices (P,) of the layer's own positions, by default all of them.
        """
        return cls((Term(layer, activation, positions),))

    @classmethod
    def dense(cls, phi: Tensor) -> Features:
        """Features that are already computed.

        Arguments:
            phi: Shape (N, P, D).
        """
        return cls.of(LastLayer("features", nn.Identity(), rows=0, has_bias=False), phi)

    def __add__(self, other: Features) -> Features:
        return Features(self.terms + other.terms)

    def weighted(self, weight: Tensor) -> Features:
        """Every position's features times its weight.

        Arguments:
            weight: Shape (N, P).
        """
        return Features(tuple(term.weighted(weight) for term in self.terms))

    def at(self, index: Tensor) -> Features:
        """The features of some positions.

        Arguments:
            index: Indices (p,) among these positions; the result has their order.
        """
        return Features(tuple(term.at(index) for term in self.terms))

    def to(self, device: torch.device | str) -> Features:
        """The same on another device."""
        return Features(tuple(term.to(device) for term in self.terms))

    def pieces(self) -> Iterator[Tensor]:
        """The features, some positions at a time.

        Returns:
            Tensors phi, float32, shape (N, p, D), whose positions follow one another, each of
            about `PIECE_BYTES`.
        """
        windows = [term.layer.windows(term.activation) for term in self.terms]
        samples, rows, width, *size = windows[0].shape
        chosen = self.terms[0].positions
        count = rows * width if chosen is None else len(chosen)
        row_bytes = 4 * samples * width * torch.Size(size).numel()
        length = width * max(1, PIECE_BYTES // row_bytes)
        for start in range(0, count, length):
            part = slice(start, min(start + length, count))
            phi = self.terms[0].piece(windows[0], part)
            for term, view in zip(self.terms[1:], windows[1:], strict=True):
                phi += term.piece(view, part)
            yield phi

    def variance(self, posterior: LaplacePosterior) -> Tensor:
        """Predictive variance phi^T Sigma phi of one output at every position.

        Returns:
            In squared units of the layer's output F, shape (N, P).
        """
        return torch.cat([posterior.variance(phi) for phi in self.pieces()], 1)

    def mean(self, weights: Tensor) -> Tensor:
        """Weighted mean of the features over the positions.

        Arguments:
            weights: Shape (N, P); they sum to 1 over the positions.

        Returns:
            sum_p w_p phi_p, shape (N, D).
        """
        means, start = [], 0
        for phi in self.pieces():
            stop = start + phi.shape[1]
            means.append(weights[:, None, start:stop] @ phi)
            start = stop
        return torch.cat(means, 1).sum(1)

    def outputs(self, weights: Tensor) -> Tensor:
        """Outputs under any weights, by the layer's own operation on its input.

        Arguments:
            weights: In place of the layer's, or a change of them, shape (R, D).

        Returns:
            W phi, shape (N, P, R).
        """
        return torch.stack([term.outputs(weights) for term in self.terms]).sum(0)


@dataclass(frozen=True)
class Term:
    """weight * phi of one input of the layer, at some of its positions.

    Attributes:
        layer: The last layer.
        activation: Its input, as in `LastLayer.features`.
        positions: Indices (P,) of positions; None is all of them.
        weight: Of every position, shape (N, P); None is 1.
    """

    layer: LastLayer
    activation: Tensor
    positions: Tensor | None = None
    weight: Tensor | None = None

    def weighted(self, weight: Tensor) -> Term:
        """The term times weights (N, P)."""
        return replace(self, weight=weight if self.weight is None else self.weight * weight)

    def at(self, index: Tensor) -> Term:
        """The term at the positions `index` (p,) among its own."""
        positions = index if self.positions is None else self.positions[index]
        weight = None if self.weight is None else self.weight[:, index.to(self.weight.device)]
        return replace(self, positions=positions, weight=weight)

    def to(self, device: torch.device | str) -> Term:
        """The same on another device."""
        weight = None if self.weight is None else self.weight.to(device)
        return replace(self, activation=self.activation.to(device), weight=weight)

    def piece(self, windows: Tensor, part: slice) -> Tensor:
        """The term (N, p, D) at a run of its positions, a tensor of its own."""
        positions = part if self.positions is None else self.positions[part]
        phi = self.layer.gather(windows, positions)
        return phi if self.weight is None else phi.mul_(self.weight[:, part, None])

    def outputs(self, weights: Tensor) -> Tensor:
        """W phi times the term's weight (N, P, R)."""
        values = self.layer.shift(self.activation.float(), weights)
        convolved = self.layer.is_convolution
        values = values.flatten(2).transpose(1, 2) if convolved else values.flatten(1, -2)
        if self.positions is not None:
            values = values[:, self.positions.to(values.device)]
        return values if self.weight is None else values * self.weight[..., None]
