"""A flow-matching network as a denoiser, for latents of any number of axes."""

import pytest
import torch
from torch import nn

from bayesdiff_core.flow_matching import FlowDenoiser, FlowModel


class Mixing(nn.Module):
    """v = W x over channels, moved by the label; for pictures, sounds and videos alike."""

    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(channels, channels)

    def forward(self, x, t, y):
        moved = (x + y.float().mean(1).view(-1, *[1] * (x.ndim - 1))).movedim(1, -1)
        return self.last(moved).movedim(-1, 1)


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 4), (2, 3, 4, 4)], ids=["1d", "2d", "3d"])
def test_guidance_of_latents_of_any_number_of_axes(shape):
    labels, null = torch.tensor([[1], [2]]), torch.zeros(2, 1, dtype=torch.long)
    model = FlowModel(Mixing(shape[0]), shape, labels)
    z, sigma = torch.randn(4, *shape), torch.tensor(0.5)
    denoiser = FlowDenoiser(model, labels, null, guidance_scale=3.0)
    with_prompt, without = denoiser.conditional(z, sigma), denoiser.unconditional(z, sigma)
    (guided,) = denoiser.predict(z, sigma)
    torch.testing.assert_close(guided, without + 3.0 * (with_prompt - without))
