"""A linear Gaussian denoiser: everything about its uncertainty is known in closed form."""

from contextlib import contextmanager

import torch

from bayesdiff_core.features import Features
from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.last_layer import OutputMap
from bayesdiff_core.solver_run import Evaluation, PlainDenoiser


class LinearDenoiser(PlainDenoiser):
    """D(z) = z K^T + c_out (b . phi) with c_out = -sigma, phi = features (P, D) of fixed content.

    K (N, N) acts on the flattened latent (C, H, W) and differs by sigma.
    """

    def __init__(self, channels, size, features, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.shape = (channels, size, size)
        count = channels * size * size
        raw = torch.randn(count, count, generator=generator) / count**0.5
        self.contraction = 0.6 * raw / torch.linalg.matrix_norm(raw, 2)
        self.features = features
        position = torch.arange(size * size).view(1, size, size).expand(self.shape)
        row = torch.arange(channels).view(-1, 1, 1).expand(self.shape)
        self.output_map = OutputMap(position, row, torch.ones(self.shape), size * size)
        self.deltas = None

    def matrix(self, sigma):
        return self.contraction * (1 - 0.5 * float(sigma))

    def predict(self, z, sigma):
        denoised = (z.flatten(1) @ self.matrix(sigma).T).view_as(z)
        if self.deltas is not None:
            shift = torch.einsum("crd,pd->crp", self.deltas, self.features)
            shift = shift.view(len(self.deltas), 1, *self.shape)
            denoised = denoised.unflatten(0, (len(self.deltas), -1)) - sigma * shift
            denoised = denoised.flatten(0, 1)
        return (denoised,)

    def evaluate(self, z, sigma):
        phi = self.features.expand(len(z), *self.features.shape)
        features = Features.dense(phi)
        return Evaluation(self.predict(z, sigma), (features,), -sigma.expand(len(z)))

    @contextmanager
    def perturbed(self, deltas):
        self.deltas = deltas
        try:
            yield
        finally:
            self.deltas = None

    def response(self, trace, row, feature):
        """d final / d W[row, feature], exactly, by the solver's own recursion: (C, H, W)."""
        source = torch.zeros(self.shape)
        source[row] = self.features[:, feature].view(self.shape[1:])
        moved = []
        for k, sigma in enumerate(trace.sigmas.tolist()):
            dz = sum(
                (trace.predictions[k, j, 0].item() * moved[j] for j in range(k)), torch.zeros(1)
            ).expand(self.shape)
            step = (dz.flatten() @ self.matrix(sigma).T).view(self.shape)
            moved.append(step - sigma * source)
        final = len(trace.sigmas)
        return sum(trace.predictions[final, j, 0].item() * d for j, d in enumerate(moved))


def unit_posterior(rows, precision):
    """A posterior with the given data precision, (D,) or (D, D), and prior precision 1."""
    return LaplacePosterior(
        precision=torch.as_tensor(precision, dtype=torch.float32),
        prior_precision=1.0,
        noise_variance=1.0,
        rows=rows,
        positions=1,
    )
