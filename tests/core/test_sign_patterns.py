"""Patterns over channels: orthogonal, and unbiased for the sum of squares."""

import pytest
import torch

from bayesdiff_core.methods.sign_patterns import channel_patterns, hadamard, sign_patterns


@pytest.mark.parametrize("size", [1, 2, 3, 16, 100])
def test_rows_of_a_hadamard_matrix_are_orthogonal_signs(size):
    signs = hadamard(size)
    assert size <= len(signs) < 2 * size
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    assert torch.equal(signs @ signs.T, len(signs) * torch.eye(len(signs)))


@pytest.mark.parametrize("channels", [16, 128])
def test_mixes_have_orthogonal_signs(channels):
    signs, weight = sign_patterns(channels, 4)
    assert torch.equal(signs.abs(), torch.ones(4, channels))
    assert torch.equal(signs @ signs.T, channels * torch.eye(4))
    assert weight * len(signs) == 1


@pytest.mark.parametrize(("channels", "probes"), [(1, 3), (3, 3), (4, 2), (4, 4), (16, 4)])
def test_channel_patterns_are_unbiased(channels, probes):
    patterns = channel_patterns(channels, probes)
    assert len(patterns) == min(channels, probes)
    torch.testing.assert_close(patterns.square().sum(0), torch.ones(channels))
    gram = patterns @ patterns.T
    torch.testing.assert_close(gram, torch.diag(gram.diag()))


@pytest.mark.parametrize(("channels", "probes"), [(3, 4), (4, 3), (16, 5), (128, 4)])
def test_both_normalisations_weigh_squares_alike(channels, probes):
    signs, weight = sign_patterns(channels, probes)
    torch.testing.assert_close(channel_patterns(channels, probes), signs * weight**0.5)
