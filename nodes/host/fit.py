"""Fitting the posterior: clean latents are noised and denoised once, and the features summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...bayesdiff_core.features import Features
from ...bayesdiff_core.laplace import GaussNewton, LaplacePosterior
from ...bayesdiff_core.precision import Structure, choose_structure
from .conditioning import select
from .feature_tap import Tap, open_last_layer
from .session import Session, with_model
from .validation import check_batches, check_latent

__all__ = ["Fit", "fit_posterior"]

CHUNK = 8
"""Latents that are denoised at once."""


@dataclass(frozen=True)
class Fit:
    """A posterior and what it was made from.

    Attributes:
        posterior: Of the last layer's weights.
        layer: Name of the layer.
        latents: Number of clean latents.
        draws: Noise draws of each.
    """

    posterior: LaplacePosterior
    layer: str
    latents: int
    draws: int

    def report(self) -> str:
        """The fit as text.

        Returns:
            A line for each figure, without a last line break.
        """
        p = self.posterior
        return "\n".join(
            [
                f"layer: {self.layer}, {p.rows} outputs of {p.features} features",
                f"structure: {p.structure}",
                f"data: {self.latents} latents, {self.draws} noise draws each, "
                f"{p.positions} positions",
                f"noise variance: {p.noise_variance:.6g}",
                f"prior precision: {p.prior_precision:.6g}",
                f"log evidence: {p.log_evidence:.6g}",
                f"fingerprint: {p.fingerprint}",
            ]
        )


def fit_posterior(
    model: Any,
    latent: dict[str, Any],
    conditioning: Any,
    *,
    draws: int,
    structure: Structure | None,
    seed: int,
) -> Fit:
    """Laplace posterior of the model's last layer around its weights, patches included.

    Residuals and features are taken at random noise levels; the prior precision is the one with
    the largest evidence (MacKay 1992), see `bayesdiff_core.laplace`.

    Arguments:
        model: The MODEL, with its patches.
        latent: LATENT of clean images, samples (B, C, *S).
        conditioning: CONDITIONING of one prompt for all latents, or a batch with one for each.
        draws: How often each latent is noised, at levels uniform over the schedule.
        structure: `full` or `diag`; None takes `full` where the number of features allows it.
        seed: Decides noise and levels.

    Returns:
        The posterior, and what it was made from.

    Raises:
        ValueError: If the latents are all zero or not finite, the batches do not fit, the
            conditioning has a timestep range, or the model has no last layer that can be followed.
        RuntimeError: If the model fails on one latent at a time, for other reasons than memory.
    """
    samples = comfy.sample.fix_empty_latent_channels(model, check_latent(latent))
    check_batches("conditioning", conditioning, len(samples))
    if not samples.any():
        raise ValueError(
            "The latents are all zero, so there is nothing to fit on. Encode some images with "
            "VAEEncode, or take what a KSampler made."
        )
    fit = _Fit(draws, structure, torch.Generator("cpu").manual_seed(seed))
    return with_model(model, {"positive": conditioning}, samples, fit.run, seed)


@dataclass
class _Fit:
    """The sums over noised latents, piece by piece."""

    draws: int
    structure: Structure | None
    generator: torch.Generator

    def run(self, session: Session) -> Fit:
        # A run is checked at its highest noise level, the fit in the middle of the schedule.
        middle = session.model.model_sampling.percent_to_sigma(0.5)
        tap = open_last_layer(session.model, session.conds, session.latents,
                              session.sigma_max.new_tensor(middle), session.options)  # fmt: skip
        sums = self._sum(session, tap)
        layer, device = tap.layer, session.latents.device
        posterior = sums.posterior(
            layer.weights(device).cpu(), fingerprint=layer.fingerprint(device)
        )
        return Fit(posterior, layer.layer.name, len(session.latents), self.draws)

    def _sum(self, session: Session, tap: Tap) -> GaussNewton:
        sums: GaussNewton | None = None
        latents, batch = session.latents, len(session.latents)
        starts = range(0, batch, CHUNK)
        progress = comfy.utils.ProgressBar(self.draws * len(starts))
        for _ in range(self.draws):
            for start in starts:
                comfy.model_management.throw_exception_if_processing_interrupted()
                rows = slice(start, start + CHUNK)
                part = select(session.conds, rows, batch)
                cond, clean = part["positive"], latents[rows]
                features, residual = self._observe(session, tap, cond, clean)
                sums = sums or self._zeros(tap.layer.features, residual.device)
                sums.update(features.pieces(), residual)
                progress.update(1)
        assert sums is not None
        return sums

    def _zeros(self, features: int, device: torch.device) -> GaussNewton:
        # Apple's devices have no double precision.
        device = torch.device("cpu") if device.type == "mps" else device
        return GaussNewton.zeros(features, self.structure or choose_structure(features), device)

    def _observe(
        self, session: Session, tap: Tap, cond: list[Any], clean: Tensor
    ) -> tuple[Features, Tensor]:
        """Features (b, P, D) and residuals F - F* (b, C, *S) at random noise levels.

        D = c_skip z + c_out F and D* = x0, so F - F* = (D - x0) / c_out.
        """
        model_sampling = session.model.model_sampling
        noise = torch.randn(clean.shape, generator=self.generator).to(clean)
        sigma = self._noise_levels(model_sampling, len(clean)).to(clean)
        z = model_sampling.noise_scaling(sigma, noise, clean)
        with tap.recording() as record:
            comfy.samplers.calc_cond_batch(session.model, [cond], z, sigma, session.options)
        (call,) = record.checked()
        features = call.features[0]
        if features is None:
            raise ValueError(
                "The conditioning is not active at every noise level. Fit on one without a "
                "timestep range."
            )
        zero = z.new_zeros(len(z), *[1] * (z.ndim - 1))
        scale = model_sampling.calculate_denoised(sigma, zero + 1, zero)
        scale = scale - model_sampling.calculate_denoised(sigma, zero, zero)
        return features, (call.predictions[0] - clean) / scale

    def _noise_levels(self, model_sampling: Any, count: int) -> Tensor:
        """Levels (count,) uniform over the schedule, within what the model was trained on."""
        percents = torch.rand(count, generator=self.generator).tolist()
        low, high = float(model_sampling.sigma_min), float(model_sampling.sigma_max)
        sigmas = [float(model_sampling.percent_to_sigma(p)) for p in percents]
        return torch.tensor([min(max(sigma, low), high) for sigma in sigmas])
