"""A solver's coefficients, read off by impulse, rebuild a nonlinear run."""

import pytest
import torch

from bayesdiff_core.solver_run import PlainDenoiser, ReferenceSolver, SolverRun
from bayesdiff_core.solver_trace import UntraceableSolverError
from bayesdiff_core.solvers import SAMPLERS, flow_sigmas


class NonlinearDenoiser(PlainDenoiser):
    """A random nonlinear function of state and noise level."""

    def __init__(self, channels=3):
        self.mix = torch.randn(channels, channels, generator=torch.Generator().manual_seed(0))

    def predict(self, z, sigma):
        mixed = torch.einsum("cd,bdhw->bchw", self.mix, z)
        return (torch.tanh(mixed) * torch.cos(3 * sigma) + 0.1 * mixed.square(),)


def process_for(function, steps=8, name="solver"):
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    solver = ReferenceSolver(function, flow_sigmas(steps), name=name)
    return SolverRun(solver, NonlinearDenoiser(), x)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_trace_rebuilds_a_nonlinear_run(name, steps):
    process = process_for(SAMPLERS[name], steps, name)
    states, outputs = [], []

    def evaluate(k, z, sigma):
        states.append(z)
        outputs.append(process.denoiser.predict(z, sigma))
        return outputs[-1][0]

    final = process.sample(evaluate)
    trace = process.trace
    for k, state in enumerate([*states, final]):
        rebuilt = trace.reconstruct(k, process.x, outputs[:k], process.draws)
        torch.testing.assert_close(rebuilt, state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_replayed_copies_repeat_the_run_exactly(name):
    process = process_for(SAMPLERS[name], name=name)
    final = process.sample()
    copies = process.replay(process.denoise, 3).unflatten(0, (3, -1))
    for copy in copies:
        torch.testing.assert_close(copy, final, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_trace_is_causal(name):
    trace = process_for(SAMPLERS[name], name=name).trace
    for k in range(trace.evaluations):
        assert not trace.predictions[k, k:].any()


def test_a_solver_that_resizes_is_refused():
    def enlarge(model, x, sigmas, callback=None, disable=None):
        return torch.nn.functional.interpolate(model(x, sigmas[:1]), scale_factor=2)

    with pytest.raises(UntraceableSolverError, match="'enlarge' changes the size"):
        _ = process_for(enlarge, name="enlarge").trace


def test_a_solver_that_decides_by_the_data_is_refused():
    def impatient(model, x, sigmas, callback=None, disable=None):
        denoised = model(x, sigmas[:1])
        return denoised if denoised.abs().max() > 0.5 else model(x, sigmas[1:2])

    with pytest.raises(UntraceableSolverError, match="chooses its steps by the image"):
        _ = process_for(impatient, name="impatient").trace


def test_a_solver_that_adds_a_constant_is_refused():
    def biased(model, x, sigmas, callback=None, disable=None):
        return model(x, sigmas[:1]) + 1

    with pytest.raises(UntraceableSolverError, match="adds a constant"):
        _ = process_for(biased, name="biased").trace
