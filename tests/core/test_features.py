"""Features that are never unfolded as a whole are those that are, whatever is asked of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from bayesdiff_core import features as module
from bayesdiff_core.features import Features
from bayesdiff_core.laplace import GaussNewton
from bayesdiff_core.last_layer import LastLayer
from benchmarks.memory import peak_bytes
from tests.core.linear import unit_posterior

CONVOLUTIONS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "1x1 without bias": {"kernel_size": 1, "bias": False},
    "strided": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1)},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2},
}
LINEAR = {"tokens": (nn.Linear(7, 3), (2, 11, 7)), "image": (nn.Linear(7, 3), (2, 5, 4, 7))}


def unfolded(layer, activation):
    """phi (N, P, D) by the library's own unfolding."""
    if not layer.is_convolution:
        phi = activation.float().flatten(1, -2)
    else:
        conv = layer.module
        phi = functional.unfold(
            activation.float(), conv.kernel_size, conv.dilation, conv.padding, conv.stride
        ).transpose(1, 2)
    return functional.pad(phi, (0, 1), value=1.0) if layer.has_bias else phi


@pytest.fixture(params=[*CONVOLUTIONS, *LINEAR])
def case(request):
    torch.manual_seed(0)
    if request.param in LINEAR:
        layer, shape = LINEAR[request.param]
    else:
        layer, shape = nn.Conv2d(3, 4, **CONVOLUTIONS[request.param]), (2, 3, 9, 7)
    last = LastLayer("out", layer, rows=len(layer.weight), has_bias=layer.bias is not None)
    return last, torch.randn(shape)


@pytest.fixture(params=[1, 700, 1 << 20], ids="pieces of {} bytes".format)
def piece_bytes(request, monkeypatch):
    """One row of positions at a time, several, and all of them."""
    monkeypatch.setattr(module, "PIECE_BYTES", request.param)


def in_one(features):
    return torch.cat(list(features.pieces()), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_pieces_are_the_unfolded_input(case, dtype, piece_bytes):
    layer, activation = case
    phi = unfolded(layer, activation.to(dtype))
    features = Features.of(layer, activation.to(dtype))
    assert torch.equal(in_one(features), phi)
    assert torch.equal(layer.features(activation.to(dtype)), phi)
    assert torch.equal(layer.features(activation.to(dtype), slice(3, 9)), phi[:, 3:9])


def combination(layer, activation):
    """Three calls as areas and guidance combine them: lazily, and written out."""
    inputs = [activation, activation.roll(1, -1).to(torch.bfloat16), activation.flip(0)]
    phis = [unfolded(layer, a) for a in inputs]
    count = phis[0].shape[1]
    kept = torch.randperm(count)[: count - 2]
    index = torch.randint(count - 2, (count,))
    first, second, inside = torch.randn(3, 2, count)
    lazy = Features.of(layer, inputs[0]).weighted(first)
    lazy = lazy + Features.of(layer, inputs[1])
    lazy = lazy + Features.of(layer, inputs[2], kept).weighted(inside[:, :-2]).at(index)
    lazy = lazy.weighted(second)
    part = (phis[2][:, kept] * inside[:, :-2, None])[:, index]
    return lazy, (phis[0] * first[..., None] + phis[1] + part) * second[..., None]


@pytest.mark.parametrize("structure", ["full", "diag"])
def test_what_methods_ask_agrees_with_unfolded_features(case, structure, piece_bytes):
    lazy, phi = combination(*case)
    torch.testing.assert_close(in_one(lazy), phi, rtol=1e-5, atol=1e-5)

    samples, count, features = phi.shape
    factor = torch.randn(features, features)
    precision = factor @ factor.T if structure == "full" else factor[0].square()
    posterior = unit_posterior(3, precision)
    full = precision if structure == "full" else precision.diag()
    covariance = torch.linalg.inv(full.double() + torch.eye(features, dtype=torch.float64))
    expected = torch.einsum("npd,de,npe->np", phi.double(), covariance, phi.double())
    torch.testing.assert_close(lazy.variance(posterior).double(), expected, rtol=1e-4, atol=1e-6)

    weights = torch.rand(samples, count).softmax(1)
    mean = torch.einsum("np,npd->nd", weights, phi)
    torch.testing.assert_close(lazy.mean(weights), mean, rtol=1e-5, atol=1e-5)

    rows = torch.randn(5, features)
    torch.testing.assert_close(lazy.outputs(rows), phi @ rows.T, rtol=1e-5, atol=2e-5)

    residual = torch.randn(samples, count, 3)
    whole, in_pieces = (GaussNewton.zeros(features, structure) for _ in range(2))
    whole.update([phi], residual)
    in_pieces.update(lazy.pieces(), residual)
    torch.testing.assert_close(in_pieces.gram, whole.gram, rtol=1e-5, atol=1e-4)
    assert in_pieces.positions == whole.positions
    assert in_pieces.noise_variance == whole.noise_variance


def test_features_that_are_there_are_left_alone():
    phi = torch.randn(2, 6, 4)
    before = phi.clone()
    doubled = Features.dense(phi).weighted(torch.full((2, 6), 2.0)) + Features.dense(phi)
    torch.testing.assert_close(in_one(doubled), 3 * before)
    assert torch.equal(phi, before)


def test_memory_follows_the_pieces_and_the_input(monkeypatch):
    """A guided 3x3 convolution in half precision, whose features are 38 MB an evaluation."""
    monkeypatch.setattr(module, "PIECE_BYTES", 1 << 20)
    torch.manual_seed(0)
    layer = LastLayer("out", nn.Conv2d(32, 4, 3, padding=1), rows=4, has_bias=True)
    sides = [Features.of(layer, torch.randn(2, 32, 128, 128).half()) for _ in range(2)]
    weight = torch.ones(2, 128 * 128)
    guided = sides[0].weighted(3 * weight) + sides[1].weighted(-2 * weight)
    posterior = unit_posterior(4, torch.eye(289))
    posterior.factor("cpu")

    def ask():
        guided.variance(posterior)
        guided.mean(weight / weight.sum(1, keepdim=True))
        guided.outputs(torch.ones(16, 289))

    unfolded_bytes = 4 * 2 * 128 * 128 * 289
    assert peak_bytes(ask) < unfolded_bytes / 2
