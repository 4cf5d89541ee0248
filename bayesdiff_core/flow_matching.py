"""A flow-matching network as a `Denoiser`, for use without a host.

States are z = (1 - t) x0 + t noise with sigma = t, the network predicts v = noise - x0, and
D = z - t v (Lipman et al. 2023; Esser et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from .features import Features
from .laplace import GaussNewton, LaplacePosterior
from .last_layer import (
    LastLayer,
    OutputMap,
    find_last_layer,
    fingerprint,
    trace_output_map,
    weights_with_bias,
)
from .precision import Structure
from .signals import CONTRAST_LEVELS, Contrast, contrast
from .solver_run import Evaluation, PlainDenoiser
from .tiling import tile

__all__ = ["FlowDenoiser", "FlowModel", "renoise"]


class FlowModel:
    """A network v(x, t, y) with its last layer found: what a fit and a denoiser share.

    Arguments:
        network: `network(x (N, C, *S), t (N,), y (N, L))` returns v (N, C, *S).
        sample_shape: (C, *S).
        labels: At least one row, shape (N, L); the first serves to find the last layer.

    Raises:
        LastLayerError: If the network has no last layer that the methods can use.
    """

    def __init__(self, network: nn.Module, sample_shape: tuple[int, ...], labels: Tensor) -> None:
        self.network = network
        device = next(network.parameters()).device
        x = torch.zeros(1, *sample_shape, device=device)
        t, y = x.new_full((1,), 0.5), labels[:1].to(device)

        @torch.no_grad()
        def forward() -> Tensor:
            return network(x, t, y)

        self.layer: LastLayer = find_last_layer(network, forward)
        self.output_map: OutputMap = trace_output_map(self.layer, forward)

    @property
    def weights(self) -> Tensor:
        """Last-layer weights (R, D), the bias as the last column."""
        module: Any = self.layer.module
        return weights_with_bias(module.weight, module.bias if self.layer.has_bias else None)

    @property
    def fingerprint(self) -> str:
        """Name and content of the last layer, see `last_layer.fingerprint`."""
        return fingerprint(self.layer.name, self.weights)

    @torch.no_grad()
    def velocity(self, z: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The network's prediction v.

        Arguments:
            z: States, shape (N, C, *S).
            sigma: Times t in [0, 1], shape () or (N,).
            labels: Shape (N, L).

        Returns:
            Shape (N, C, *S), in latent units.
        """
        return self.network(z, sigma.expand(len(z)), labels)

    def fit(
        self,
        batches: Iterator[tuple[Tensor, Tensor]],
        generator: torch.Generator,
        structure: Structure = "full",
        draws: int = 1,
    ) -> GaussNewton:
        """Sums of the Gauss-Newton matrix over clean images at uniform random times.

        Arguments:
            batches: Pairs of x0 (B, C, *S) and labels (B, L).
            generator: Of noise and times, on the CPU.
            structure: `full` or `diag`.
            draws: How often each batch is noised.

        Raises:
            ValueError: If there is no batch.
        """
        sums: GaussNewton | None = None
        for x0, labels in batches:
            for _ in range(draws):
                noise = torch.randn(x0.shape, generator=generator)
                t = torch.rand(len(x0), generator=generator)
                level = t.view(-1, *[1] * (x0.ndim - 1))
                with self.layer.tap() as activations:
                    v = self.velocity((1 - level) * x0 + level * noise, t, labels)
                features = Features.of(self.layer, activations[0])
                sums = sums or GaussNewton.zeros(self.weights.shape[1], structure, v.device)
                sums.update(features.pieces(), v - (noise - x0))
        if sums is None:
            raise ValueError("No images went into the fit; give at least one batch.")
        return sums

    def posterior(self, sums: GaussNewton) -> LaplacePosterior:
        """The posterior of `fit`'s sums, with the prior precision of largest evidence."""
        return sums.posterior(self.weights, fingerprint=self.fingerprint)


class FlowDenoiser(PlainDenoiser):
    """The guided denoiser D = D_u + s (D_c - D_u) of a `FlowModel`.

    Arguments:
        model: The network.
        labels: Of the condition, shape (B, L).
        null_labels: Of the absent condition, shape (B, L); needed where s is not 1.
        guidance_scale: s.

    Raises:
        ValueError: If there are no null labels to guide away from.
    """

    def __init__(
        self,
        model: FlowModel,
        labels: Tensor,
        null_labels: Tensor | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        if guidance_scale != 1.0 and null_labels is None:
            raise ValueError("A guidance scale other than 1 needs null labels to guide away from.")
        self.model = model
        self.guidance_scale = guidance_scale
        self.labels = labels
        self.null_labels = null_labels
        self.output_map = model.output_map

    @property
    def guided(self) -> bool:
        """Whether an evaluation takes two calls of the network, with the condition first."""
        return self.guidance_scale != 1.0

    def predict(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        """The denoised prediction D = z - t v.

        Arguments:
            z: States, shape (n * B, C, *S), tile-major: row c * B + b is copy c of sample b.
            sigma: Time t, shape ().

        Returns:
            The guided D alone, shape (n * B, C, *S), in latent units.
        """
        conditions = self._conditions(len(z) // len(self.labels))
        v = self.model.velocity(tile(z, len(conditions)), sigma, torch.cat(conditions))
        return (z - sigma * self._combine(v),)

    def evaluate(self, z: Tensor, sigma: Tensor) -> Evaluation:
        """The prediction with the last-layer features that made it.

        The output scale is -t, as D = z - t v; the features are guided as the prediction is.

        Arguments:
            z: States, shape (B, C, *S).
            sigma: Time t, shape ().
        """
        with self.model.layer.tap() as activations:
            predictions = self.predict(z, sigma)
        layer, activation = self.model.layer, activations[0]
        guided = Features.of(layer, self._combine(activation.float()))
        weights = (self.guidance_scale, 1 - self.guidance_scale) if self.guided else (1.0,)
        sides = activation.chunk(len(weights))
        guidance = tuple((w, Features.of(layer, a)) for w, a in zip(weights, sides, strict=True))
        return Evaluation(predictions, (guided,), -sigma.expand(len(z)), guidance)

    def conditional(self, z: Tensor, sigma: Tensor) -> Tensor:
        """D_c, the prediction with the condition alone.

        Arguments:
            z: States, shape (n * B, C, *S), tile-major.
            sigma: Time t, shape ().

        Returns:
            Shape (n * B, C, *S), in latent units.
        """
        labels = tile(self.labels, len(z) // len(self.labels))
        return z - sigma * self.model.velocity(z, sigma, labels)

    def unconditional(self, z: Tensor, sigma: Tensor) -> Tensor:
        """D_u, the prediction without the condition.

        Arguments:
            z: States, shape (n * B, C, *S), tile-major.
            sigma: Time t, shape ().

        Returns:
            Shape (n * B, C, *S), in latent units.

        Raises:
            ValueError: If there are no null labels.
        """
        if self.null_labels is None:
            raise ValueError("This denoiser has no null labels, so no unconditional prediction.")
        labels = tile(self.null_labels, len(z) // len(self.null_labels))
        return z - sigma * self.model.velocity(z, sigma, labels)

    def contrast(self, latents: Tensor, seed: int) -> Contrast:
        """Contrast of final latents (n * B, C, *S), n tile-major copies of the labels' B images.

        At CONTRAST_LEVELS; `seed` draws the noise, which all copies share.
        """
        copies = len(latents) // len(self.labels)
        levels = {t: torch.tensor(t, device=latents.device) for t in CONTRAST_LEVELS}
        generator = torch.Generator().manual_seed(seed)
        sides = (self.conditional, self.unconditional)
        return contrast(*sides, latents, renoise, levels, generator, copies=copies)

    def perturbed(self, deltas: Tensor) -> AbstractContextManager[None]:
        """Within the context copy c of the batch runs with weights W + deltas[c].

        Arguments:
            deltas: Shape (n, R, D).
        """
        return self.model.layer.perturbed(deltas, chunks=2 if self.guided else 1)

    def _conditions(self, copies: int) -> list[Tensor]:
        labels = [tile(self.labels, copies)]
        if self.guided and self.null_labels is not None:
            labels.append(tile(self.null_labels, copies))
        return labels

    def _combine(self, values: Tensor) -> Tensor:
        if not self.guided:
            return values
        conditional, unconditional = values.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)


def renoise(sigma: Tensor, noise: Tensor, clean: Tensor) -> Tensor:
    """The state (1 - sigma) clean + sigma noise of a flow, any shape, at noise level sigma ()."""
    return (1 - sigma) * clean + sigma * noise
