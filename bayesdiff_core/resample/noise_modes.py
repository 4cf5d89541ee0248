"""Where a region starts from: the initial states of its candidates, one function per noise mode.

On small models fresh noise around the recorded denoised prediction repaired the most, and drawing
x_t ~ N(E x_t, Var x_t), as Kou et al. (2024, section 4.2) propose, repaired nothing: a posterior
moves the state by far less than a malformed shape would need (docs/evidence.md).

To add a mode, write a function of a `Start` and name it in `NOISE_MODES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..methods.posterior_moves import along_moves, independent_moves
from .masked_run import MaskedRun, RegionRun, Renoise, RenoisedRun

__all__ = ["NOISE_MODES", "NoiseMode", "Start", "Starting", "renoised_start"]


@dataclass(frozen=True)
class Start:
    """What a noise mode starts from.

    `run` is the recorded run with n copies, `noise` (n * B, C, *S) is fresh, `renoise` noises a
    clean latent as the model was trained to see it, and `moves()` gives the posterior's moves
    (K, B, C, *S) of the recorded state.
    """

    run: MaskedRun
    noise: Tensor
    renoise: Renoise
    moves: Callable[[], Tensor]


Starting = tuple[RegionRun, Tensor]
"""The run to be done, perhaps without its recording, and its initial states (n * B, C, *S)."""


@dataclass(frozen=True)
class NoiseMode:
    """How candidates start, and what that is good for in one line."""

    text: str
    begin: Callable[[Start], Starting]
    needs_posterior: bool = False


def around_prediction(start: Start) -> Starting:
    """Fresh noise around the recorded denoised prediction of the starting step."""
    run = start.run
    return run, run.around(run.prediction, start.renoise, start.noise)


def around_result(start: Start) -> Starting:
    """Fresh noise around the recorded result; the recorded run outside.

    Raises:
        ValueError: Where the result still carries noise, so that nothing is around it.
    """
    run = start.run
    return run, run.around(run.clean, start.renoise, start.noise)


def image_to_image(start: Start) -> Starting:
    """Plain inpainting: the result, noised as a whole, stands for the recording."""
    run = start.run
    return renoised_start(run.clean, run.mask, run.sigmas[0], start.renoise, start.noise)


def drawn_pixels(start: Start) -> Starting:
    """The recorded state drawn from the posterior pixel by pixel, as published."""
    return start.run, start.run.moved(independent_moves(start.moves(), start.noise))


def moved_along_tangents(start: Start) -> Starting:
    """The recorded state moved along the tangents of the posterior."""
    return start.run, start.run.moved(along_moves(start.moves(), start.noise))


def renoised_start(
    clean: Tensor, mask: Tensor, sigma: Tensor, renoise: Renoise, noise: Tensor
) -> Starting:
    """Start of a region of an image without a recording, which is noised as a whole.

    Arguments:
        clean: The image, shape (B, C, *S).
        mask: Where it is sampled again, shape (B, 1, *S).
        sigma: Noise level to start from, shape ().
        renoise: Noises a clean latent.
        noise: Shape (n * B, C, *S); the outside gets that of the first copy in all of them.
    """
    batch = len(clean)
    run = RenoisedRun(clean.to(noise), mask, renoise, noise[:batch], len(noise) // batch)
    return run, run.start(renoise, sigma, noise)


NOISE_MODES = {
    "denoised": NoiseMode(
        "fresh noise around what the model predicted at that step; repaired the most",
        around_prediction,
    ),
    "final": NoiseMode(
        "fresh noise around the final image; stays closer to it and repaired less", around_result
    ),
    "img2img": NoiseMode(
        "plain inpainting: the same, the outside noised anew, too; repaired like final",
        image_to_image,
    ),
    "posterior": NoiseMode(
        "no fresh noise: the state drawn pixel by pixel from the posterior, as published; "
        "repaired nothing, for variants",
        drawn_pixels,
        needs_posterior=True,
    ),
    "posterior_tangents": NoiseMode(
        "no fresh noise: the state moved along the posterior's tangents; repaired nothing, for "
        "variants",
        moved_along_tangents,
        needs_posterior=True,
    ),
}
