"""The closed forms against an independent oracle: dense float64 algebra on the network itself."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from bayesdiff_core.laplace import GaussNewton
from bayesdiff_core.last_layer import LastLayer
from tests.core.linear import unit_posterior

LAYERS = {
    "convolution": (nn.Conv2d(3, 2, 3, padding=1), (5, 3, 6, 4)),
    "strided convolution": (nn.Conv2d(3, 2, 3, padding="same", dilation=2), (5, 3, 6, 4)),
    "linear": (nn.Linear(7, 3), (5, 11, 7)),
    "linear without bias": (nn.Linear(7, 3, bias=False), (5, 11, 7)),
}


@pytest.fixture(params=LAYERS, ids=str)
def layer(request):
    module, shape = LAYERS[request.param]
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    activation = torch.randn(shape, generator=generator)
    last = LastLayer("out", module, rows=len(module.weight), has_bias=module.bias is not None)
    return last, activation, generator


def flat_weights(module):
    weight = module.weight.detach().flatten(1)
    return weight if module.bias is None else torch.cat([weight, module.bias.detach()[:, None]], 1)


def jacobian(last, activation):
    """d output / d weights by autograd in float64: (outputs, R, D)."""
    module = last.module
    names = [name for name, _ in module.named_parameters()]

    def run(*values):
        return torch.func.functional_call(
            module, dict(zip(names, values, strict=True)), activation.double()
        ).flatten()

    values = tuple(p.detach().double() for p in module.parameters())
    parts = torch.func.jacrev(run, argnums=tuple(range(len(values))))(*values)
    return torch.cat([part.reshape(len(part), last.rows, -1) for part in parts], -1)


def fit(last, activation, residual, structure="full"):
    phi = last.features(activation)
    sums = GaussNewton.zeros(phi.shape[-1], structure)
    sums.update([phi], residual)
    return sums


def test_gauss_newton_variance_and_evidence_agree_with_dense_algebra(layer):
    last, activation, generator = layer
    output = last.module(activation).detach()
    target = output + 0.7 * torch.randn(output.shape, generator=generator)
    residual = output - target
    sums = fit(last, activation, residual)
    weights = flat_weights(last.module)
    prior_precision = 3.0
    posterior = sums.posterior(weights, prior_precision)

    J = jacobian(last, activation).flatten(1)
    s2 = residual.double().square().mean()
    precision = J.T @ J / s2
    parameters = precision.shape[0]
    full = precision + prior_precision * torch.eye(parameters, dtype=torch.float64)

    block = precision.reshape(last.rows, -1, last.rows, posterior.features)
    for row in range(last.rows):
        torch.testing.assert_close(
            posterior.precision.double(), block[row, :, row], rtol=1e-5, atol=1e-5 * block.max()
        )

    variance = torch.einsum("np,np->n", J @ torch.linalg.inv(full), J).view(output.shape)
    closed = posterior.variance(last.features(activation))
    per_position = variance.flatten(2)[:, 0] if last.is_convolution else variance[..., 0]
    torch.testing.assert_close(closed.double(), per_position, rtol=1e-5, atol=0)

    log_evidence = (
        -0.5 * residual.numel() * math.log(2 * math.pi * s2)
        - 0.5 * residual.double().square().sum() / s2
        - 0.5 * prior_precision * weights.double().square().sum()
        + 0.5 * parameters * math.log(prior_precision)
        - 0.5 * torch.linalg.slogdet(full).logabsdet
    )
    assert posterior.log_evidence == pytest.approx(log_evidence.item(), rel=1e-5)


def test_chosen_prior_precision_maximises_the_evidence(layer):
    last, activation, generator = layer
    residual = torch.randn(last.module(activation).shape, generator=generator)
    sums = fit(last, activation, residual)
    weights = flat_weights(last.module)
    best = sums.posterior(weights)
    for factor in (0.8, 1.25):
        other = sums.posterior(weights, best.prior_precision * factor)
        assert other.log_evidence < best.log_evidence


@pytest.mark.parametrize("structure", ["full", "diag"])
def test_closed_form_variance_agrees_with_weight_draws(layer, structure):
    last, activation, generator = layer
    residual = torch.randn(last.module(activation).shape, generator=generator)
    posterior = fit(last, activation, residual, structure).posterior(flat_weights(last.module))
    phi = last.features(activation)[0]
    draws = posterior.draw(20_000, generator)
    empirical = (draws[:, 0] @ phi.T).var(0)
    # The relative standard error of a variance from n draws is sqrt(2 / n) = 0.01; six of them.
    torch.testing.assert_close(posterior.variance(phi), empirical, rtol=0.06, atol=0)


@pytest.mark.parametrize("structure", ["full", "diag"])
def test_fits_merge_by_addition(layer, structure):
    last, activation, generator = layer
    residual = torch.randn(last.module(activation).shape, generator=generator)
    whole = fit(last, activation, residual, structure)
    merged = fit(last, activation[:2], residual[:2], structure) + fit(
        last, activation[2:], residual[2:], structure
    )
    torch.testing.assert_close(merged.gram, whole.gram, rtol=1e-5, atol=1e-5)
    assert merged.noise_variance == pytest.approx(whole.noise_variance)
    assert merged.positions == whole.positions


def test_more_data_makes_the_weights_more_certain(layer):
    last, activation, generator = layer
    residual = torch.randn(last.module(activation).shape, generator=generator)
    once = fit(last, activation, residual)
    weights, phi = flat_weights(last.module), last.features(activation)
    less = once.posterior(weights, 1.0).variance(phi)
    more = (once + once).posterior(weights, 1.0).variance(phi)
    assert (more < less).all()


def test_shift_is_the_exact_change_of_the_layer(layer):
    last, activation, generator = layer
    delta = torch.randn(last.rows, last.features(activation).shape[-1], generator=generator)
    expected = (last.features(activation) @ delta.T).transpose(1, 2)
    shift = last.shift(activation, delta)
    shift = shift.flatten(2) if last.is_convolution else shift.transpose(1, 2)
    torch.testing.assert_close(shift, expected, rtol=1e-4, atol=1e-4)


def test_data_that_cannot_be_used_is_refused():
    sums = GaussNewton.zeros(4, "full")
    with pytest.raises(ValueError, match="not finite"):
        sums.update([torch.ones(3, 4)], torch.tensor([1.0, float("nan"), 0.0]))
    with pytest.raises(ValueError, match="Expected 4 features, got 5"):
        sums.update([torch.ones(3, 5)], torch.zeros(3))
    with pytest.raises(ValueError, match="No data"):
        sums.posterior(torch.ones(1, 4))
    with pytest.raises(ValueError, match="cannot be merged"):
        sums + GaussNewton.zeros(4, "diag")


def test_a_changed_copy_forgets_the_factors_of_its_original():
    posterior = unit_posterior(1, [0.0, 3.0])
    phi = torch.ones(1, posterior.features)
    before = posterior.variance(phi)
    stronger = replace(posterior, precision=2 * posterior.precision + 1)
    assert (stronger.variance(phi) < before).all()
    assert torch.equal(posterior.variance(phi), before)
