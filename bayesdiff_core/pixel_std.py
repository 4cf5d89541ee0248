"""The posterior's spread in the picture: the decoder's answer to shifts of the latent.

A shift of the latent by its std moves each pixel of the picture. Coherent shifts, one sign over
the whole image for each channel, carry most of the posterior's variance (see `methods.tangent`),
so the decoder is asked for exactly these: channel by channel where there are few channels, else
by K mixes of all channels with orthogonal signs r_i, for which

    mean over i of (sum_c r_ic d_c)^2  estimates  sum_c d_c^2

without bias. Each shift is decoded in both directions and half the difference is taken, so that
the decoder's curvature cancels.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .methods.sign_patterns import sign_patterns

__all__ = ["PIXEL_UNIT", "pixel_std"]

PIXEL_UNIT = "pixel std"


def pixel_std(
    decode: Callable[[Tensor], Tensor], latent: Tensor, std: Tensor, patterns: int = 4
) -> Tensor:
    """Standard deviation of the picture's pixels.

    Arguments:
        decode: From a latent (B, C, *S) to pictures (B, H, W, 3) in [0, 1].
        latent: Where the decoder is asked, shape (B, C, *S).
        std: Of the latent, same shape.
        patterns: How many shifts at most; two decodes each.

    Returns:
        Root mean square over the colours, in [0, 1] of the picture's range, shape (B, H, W).

    Raises:
        ValueError: If the std does not have the shape of the latent.
    """
    if latent.shape != std.shape:
        raise ValueError(
            f"The latent has the shape {tuple(latent.shape)} but its std {tuple(std.shape)}; "
            "connect the VAE and the image that belong to this uncertainty."
        )
    signs, weight = sign_patterns(latent.shape[1], patterns)
    total: Tensor | None = None
    for row in signs:
        shift = std * row.view(1, -1, *[1] * (std.ndim - 2))
        moved = (decode(latent + shift) - decode(latent - shift)).float().cpu() / 2
        squared = weight * moved.square().mean(dim=-1)
        total = squared if total is None else total + squared
    assert total is not None
    return total.sqrt()
