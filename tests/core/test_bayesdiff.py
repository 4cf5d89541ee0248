"""The published recursion against a plain transcription of the paper's equations."""

import pytest
import torch

from bayesdiff_core.features import Features
from bayesdiff_core.last_layer import OutputMap
from bayesdiff_core.methods import BayesDiff, UnsupportedSolverError
from bayesdiff_core.solver_run import Evaluation, PlainDenoiser, ReferenceSolver, SolverRun
from bayesdiff_core.solvers import SAMPLERS, flow_alpha, flow_sigmas
from tests.core.linear import unit_posterior

SHAPE = (2, 4, 4)


class Network(PlainDenoiser):
    """A nonlinear noise prediction e(z, sigma) on two features, guided with scale 3."""

    guidance_scale = 3.0
    position = torch.arange(16).view(1, 4, 4).expand(SHAPE)
    output_map = OutputMap(position, torch.zeros(SHAPE).long(), torch.ones(SHAPE), 16)

    def noise(self, z, sigma):
        return torch.tanh(2 * z.roll(1, -1)) + 0.3 * z * sigma

    def predict(self, z, sigma):
        return (z - sigma * self.noise(z, sigma),)

    def sides(self, z, sigma):
        flat = z.mean(1).flatten(1)
        conditional = torch.stack([flat, flat.square()], -1)
        unconditional = torch.stack([flat.cos(), flat * sigma], -1)
        return conditional, unconditional

    def evaluate(self, z, sigma):
        s = self.guidance_scale
        conditional, unconditional = self.sides(z, sigma)
        guided = Features.dense(s * conditional + (1 - s) * unconditional)
        terms = ((s, Features.dense(conditional)), (1 - s, Features.dense(unconditional)))
        return Evaluation(self.predict(z, sigma), (guided,), -sigma.expand(len(z)), terms)


def transcription(network, posterior, x, sigmas, solver, S, skip, seed, noise):
    """Equations 8 to 12 of the paper, solver by solver, written out.

    The signal level is 1 for Euler and DPM-Solver-2, which work in dz / dsigma, and 1 - sigma for
    the ancestral step of flow matching.
    """
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    E, var = x, torch.zeros_like(x)
    negative = []
    for i in range(len(sigmas) - 1):
        t, s = sigmas[i], sigmas[i + 1]
        if solver == "ddpm":
            up = s / t * (t**2 - (flow_alpha(t) / flow_alpha(s)) ** 2 * s**2).sqrt()
            down = (s**2 - up**2).clamp(min=0).sqrt()
            # z' = alpha_s D + down (z - alpha_t D) / t with D = z - t e
            from_denoised = flow_alpha(s) - down * flow_alpha(t) / t
            a, b = from_denoised + down / t, -t * from_denoised
        else:
            a, b = torch.tensor(1.0), s - t
        middle = (t * s).sqrt()
        halved = solver == "dpm_solver_2" and s > 0
        to_used = lambda z: z + (middle - t) * network.noise(z, t) if halved else z  # noqa: B023, E731
        used_sigma = middle if halved else t
        z = to_used(x)
        e = network.noise(z, used_sigma)
        if i % skip == 0:
            conditional, unconditional = network.sides(z, used_sigma)
            w = network.guidance_scale
            var_e = (1 - w) ** 2 * posterior.variance(unconditional) + w**2 * posterior.variance(
                conditional
            )
            var_e = var_e.view(-1, 1, 4, 4).expand_as(x)
            covariance, mean_e = 0.0, e
            if i > 0:
                samples = [E + var.sqrt() * n for n in randn(S, *x.shape)]
                predictions = [network.noise(to_used(z_i), used_sigma) for z_i in samples]
                mean_e = sum(predictions) / S
                products = [z_i * e_i for z_i, e_i in zip(samples, predictions, strict=True)]
                covariance = sum(products) / S - E * mean_e
            var = a**2 * var + 2 * a * b * covariance + b**2 * var_e
            negative.append((var < 0).float().mean().item())
            var = var.clamp(min=0)
            E = a * E + b * mean_e
            e = e + var_e.sqrt() * randn(x.shape)
        else:
            E, var = a * E + b * e, a**2 * var
        x = a * x + b * e
        if solver == "ddpm" and s > 0:
            x = x + up * noise[i]
    return x, var, sum(negative) / len(negative)


@pytest.mark.parametrize("skip", [1, 3])
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpm_solver_2"])
def test_recursion_is_the_papers(solver, skip):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *SHAPE, generator=generator)
    noise = [torch.randn(2, *SHAPE, generator=generator) for _ in range(8)]
    # The first sigma stays below 1, where the ancestral step's signal level would vanish.
    sigmas = flow_sigmas(8) * 0.95
    draws = iter(noise)
    network, posterior = Network(), unit_posterior(1, [20.0, 30.0])
    runner = ReferenceSolver(SAMPLERS[solver], sigmas, name=solver, noise=lambda: next(draws))
    process = SolverRun(runner, network, x)
    result = BayesDiff(samples=10, skip=skip, seed=7).sample(process, posterior)
    latent, variance, negative = transcription(
        network, posterior, x, sigmas, solver, 10, skip, 7, noise
    )
    torch.testing.assert_close(result.latent, latent, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result.variance, variance, rtol=1e-3, atol=1e-6)
    assert result.notes["negative_variances"] == pytest.approx(negative, abs=0.02)


def test_multistep_solvers_are_refused_by_name():
    x = torch.zeros(1, *SHAPE)
    solver = ReferenceSolver(SAMPLERS["dpmpp_2m"], flow_sigmas(6) * 0.95, name="dpmpp_2m")
    process = SolverRun(solver, Network(), x)
    with pytest.raises(UnsupportedSolverError, match="not 'dpmpp_2m'"):
        BayesDiff().sample(process, unit_posterior(1, [1.0, 1.0]))
