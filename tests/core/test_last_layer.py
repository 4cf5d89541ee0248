"""The last layer is found, its output followed, and every hook is gone afterwards."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from bayesdiff_core.last_layer import (
    LastLayer,
    LastLayerError,
    check_fingerprint,
    find_last_layer,
    fingerprint,
    trace_output_map,
    weights_with_bias,
)
from tests.core.linear import unit_posterior


class Unpatchify(nn.Module):
    """A transformer's ending: linear, negated, half of the channels dropped, unpatchified."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.last = nn.Linear(6, 2 * 2 * 6)

    def forward(self, x):
        tokens = self.last(self.first(x).tanh())
        image = tokens.view(len(x), 3, 4, 2, 2, 6).permute(0, 5, 1, 3, 2, 4).reshape(-1, 6, 6, 8)
        return -image[:, :3, :, :7]


@pytest.fixture
def patched():
    torch.manual_seed(0)
    network, x = Unpatchify(), torch.randn(1, 12, 5)
    return network, lambda: network(x).detach(), x


def test_signed_gather_is_followed_through_unpatchify_crop_and_negation(patched):
    network, forward, x = patched
    layer = find_last_layer(network, forward)
    assert layer.name == "last"
    output_map = trace_output_map(layer, forward)
    assert output_map.positions == 12
    assert len(output_map.row[0].unique()) == 4
    assert (output_map.sign == -1).all()

    delta = torch.randn(layer.rows, 7)
    with layer.tap() as activations:
        before = forward()
    with layer.override(lambda a, y: y + layer.shift(a, delta)):
        after = forward()
    change = layer.features(activations[0]) @ delta.T
    expected = output_map.gather(change)[0]
    torch.testing.assert_close((after - before)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("module", [nn.Linear(6, 3), nn.Conv2d(6, 3, 3, padding=1)], ids=type)
def test_every_copy_runs_with_weights_of_its_own(module, chunks):
    """Against the layer itself with its parameters replaced."""
    torch.manual_seed(0)
    convolved = isinstance(module, nn.Conv2d)
    layer = LastLayer("last", module, rows=3, has_bias=True)
    copies, rows = 2, 4
    x = torch.randn(chunks * copies * rows, *((6, 5, 5) if convolved else (5, 6)))
    weights = weights_with_bias(module.weight, module.bias)
    deltas = torch.randn(copies, *weights.shape)
    with torch.no_grad(), layer.perturbed(deltas, chunks):
        moved = module(x).unflatten(0, (chunks, copies, rows))
    for c, delta in enumerate(deltas):
        total = weights + delta
        parameters = {"weight": total[:, :-1].view_as(module.weight), "bias": total[:, -1]}
        part = x.unflatten(0, (chunks, copies, rows))[:, c].flatten(0, 1)
        known = torch.func.functional_call(module, parameters, part).unflatten(0, (chunks, rows))
        torch.testing.assert_close(moved[:, c], known, rtol=1e-4, atol=1e-5)


def test_weights_without_a_bias_are_flattened_alone():
    module = nn.Conv2d(6, 3, 3, bias=False)
    assert torch.equal(weights_with_bias(module.weight, module.bias), module.weight.flatten(1))


def test_no_hook_stays_behind(patched):
    network, forward, _ = patched
    layer = find_last_layer(network, forward)

    def fail(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError), layer.tap(), layer.override(fail):
        forward()
    for module in network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_average_undoes_spread(patched):
    network, forward, _ = patched
    output_map = trace_output_map(find_last_layer(network, forward), forward)
    values = torch.randn(2, 12)
    torch.testing.assert_close(output_map.average(output_map.to_latent(values)), values)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2)), "has groups"),
        (nn.Sequential(nn.ReLU()), "no last layer"),
    ],
)
def test_networks_without_a_usable_last_layer_are_refused(network, message):
    with pytest.raises(LastLayerError, match=message):
        find_last_layer(network, lambda: network(torch.randn(1, 2, 4, 4)))


def test_a_layer_that_runs_twice_is_refused():
    layer = nn.Conv2d(2, 2, 1)
    network = nn.Sequential(layer, layer)
    with pytest.raises(LastLayerError, match="runs 2 times"):
        find_last_layer(network, lambda: network(torch.randn(1, 2, 4, 4)))


def test_anything_but_a_rearrangement_behind_the_layer_is_refused():
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Tanh())
    forward = lambda: network(torch.randn(1, 2, 4, 4)).detach()  # noqa: E731
    layer = find_last_layer(network, forward)
    with pytest.raises(LastLayerError, match="more than a signed rearrangement"):
        trace_output_map(layer, forward)


def test_a_posterior_of_another_layer_is_refused_with_both_fingerprints():
    fitted = fingerprint("out.2", torch.ones(2, 5))
    posterior = replace(unit_posterior(2, torch.ones(5)), fingerprint=fitted)
    expected = fingerprint("out.2", nn.Linear(4, 2).weight)
    with pytest.raises(ValueError) as caught:
        check_fingerprint(posterior, expected)
    assert posterior.fingerprint in str(caught.value) and expected in str(caught.value)
    check_fingerprint(posterior, posterior.fingerprint)


def test_fingerprints_tell_weights_apart():
    weights = torch.randn(2, 3)
    assert fingerprint("a", weights) == fingerprint("a", weights.clone())
    assert fingerprint("a", weights) != fingerprint("a", weights + 1e-6)
    assert fingerprint("a", weights) != fingerprint("b", weights)
