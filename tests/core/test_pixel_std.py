"""The spread of a picture, against linear decoders whose answer is known."""

import pytest
import torch

from bayesdiff_core.pixel_std import pixel_std


def linear_decoder(channels, seed=0):
    weights = torch.randn(3, channels, generator=torch.Generator().manual_seed(seed))
    return weights, lambda z: torch.einsum("oc,bchw->bhwo", weights, z)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_exact_on_a_linear_decoder_with_few_channels(channels):
    weights, decode = linear_decoder(channels)
    std = torch.rand(2, channels, 5, 6, generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("oc,bchw->bhwo", weights.square(), std.square()).mean(-1).sqrt()
    assert torch.allclose(pixel_std(decode, torch.zeros_like(std), std), expected, rtol=1e-5)


def test_curvature_cancels():
    weights, decode = linear_decoder(4)
    std = torch.full((1, 4, 3, 3), 0.1)
    zero = torch.zeros_like(std)
    curved = pixel_std(lambda z: decode(z) + 5 * decode(z).square(), zero, std)
    assert torch.allclose(curved, pixel_std(decode, zero, std), rtol=1e-4)


def test_a_std_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="connect the VAE"):
        pixel_std(lambda z: z, torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 3, 3))
