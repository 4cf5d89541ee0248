"""Sample a region again and leave the rest of the image alone, to the bit.

Outside the mask a `MaskedRun` replays the recorded trajectory: at every evaluation the solver sees
the recorded state there and the recorded prediction, and the result is the recorded result. A
`RenoisedRun` has no recording to replay, or runs another solver: outside, the image noised anew
stands for it, as in plain inpainting, and is put back at the end.

Where the region starts from is the noise mode, see `noise_modes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..map_checks import check_shape, check_whole
from ..recording import Recording
from ..solver_run import EvaluateStep
from ..tiling import tile

__all__ = ["MaskedRun", "RegionRun", "Renoise", "RenoisedRun"]

Renoise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(sigma (), noise, clean latent) -> noised state, as the model was trained to see it."""


@dataclass(frozen=True)
class MaskedRun:
    """The last part of a recorded run, done again inside `mask` (B, 1, *S), in copies.

    `denoise` is the share of the schedule that runs again. `mask` may be soft: states are blended
    in latent space at every evaluation. `evaluations` says how many evaluations that share takes,
    where it is known; else the first one is found by its noise level.
    """

    recording: Recording
    mask: Tensor
    denoise: float
    copies: int = 1
    evaluations: int | None = None

    def __post_init__(self) -> None:
        check_mask(self.mask, self.recording.final)
        check_whole(self.copies, "The number of copies", 1)
        if not self.mask.any():
            raise ValueError("The mask is empty, so there is nothing to sample again.")

    @property
    def first_step(self) -> int:
        return self.recording.start_of(self.denoise)[0]

    @property
    def first_evaluation(self) -> int:
        if self.evaluations is not None:
            return max(len(self.recording.sigmas) - self.evaluations, 0)
        return self.recording.start_of(self.denoise)[1]

    @property
    def sigmas(self) -> Tensor:
        """The part of the schedule that runs again."""
        return self.recording.schedule[self.first_step :]

    def around(self, centre: Tensor, renoise: Renoise, noise: Tensor) -> Tensor:
        """Initial states (n * B, C, *S): fresh `noise` of that shape around a centre (B, ...)."""
        fresh = renoise(self.sigmas[0].to(noise), noise, self._recorded(centre, noise))
        return self._blend(fresh, self.recording.states[self.first_evaluation])

    def moved(self, moves: Tensor) -> Tensor:
        """Initial states (n * B, C, *S): the recorded one, moved inside the mask."""
        state = self.recording.states[self.first_evaluation]
        return self._recorded(state, moves) + moves * tile(self.mask.to(moves), self.copies)

    @property
    def prediction(self) -> Tensor:
        """The recorded denoised prediction (B, C, *S) of the step at which the run starts."""
        return self.recording.denoised[self.first_evaluation]

    @property
    def clean(self) -> Tensor:
        """The recorded result (B, C, *S). Raises ValueError where it still carries noise."""
        if self.recording.schedule[-1] > 0:
            raise ValueError(
                "The recorded run stopped before the end of its schedule, so there is no finished "
                "image to start from. Use the noise mode denoised, or sample to the end."
            )
        return self.recording.final

    def evaluate(self, denoise: EvaluateStep) -> EvaluateStep:
        """`denoise`, with the recording outside the mask."""
        first, states = self.first_evaluation, self.recording.states
        last = len(states) - 1

        def masked(k: int, z: Tensor, sigma: Tensor) -> Tensor:
            j = min(first + k, last)
            denoised = denoise(k, self._blend(z, states[j]), sigma)
            return self._blend(denoised, self.recording.denoised[j])

        return masked

    def finish(self, final: Tensor) -> Tensor:
        """Results (n * B, C, *S): the recorded one, to the bit, where the mask is 0."""
        return _composed(final, self.recording.final, self.mask, self.copies)

    def _recorded(self, recorded: Tensor, like: Tensor) -> Tensor:
        return tile(recorded.to(like), self.copies)

    def _blend(self, inside: Tensor, recorded: Tensor) -> Tensor:
        return _blended(inside, recorded, self.mask, self.copies)


@dataclass(frozen=True)
class RenoisedRun:
    """A region of `clean` (B, C, *S) sampled again inside `mask` (B, 1, *S), with no recording.

    Outside, the solver is told at every evaluation that `clean` is the prediction, and the model
    sees `outside(sigma, noise, clean)`, always with the same `noise` (B, C, *S). The result is
    `clean`, to the bit, where the mask is 0; on the way the model saw the surroundings only as
    well as that noise stands for a real run's.
    """

    clean: Tensor
    mask: Tensor
    outside: Renoise
    noise: Tensor
    copies: int = 1

    def __post_init__(self) -> None:
        check_mask(self.mask, self.clean)
        check_shape(self.noise, "The noise", *self.clean.shape)
        check_whole(self.copies, "The number of copies", 1)

    def start(self, renoise: Renoise, sigma: Tensor, noise: Tensor) -> Tensor:
        """Initial states (n * B, C, *S) at level `sigma` from fresh `noise` of that shape."""
        fresh = renoise(sigma.to(noise), noise, tile(self.clean.to(noise), self.copies))
        return _blended(fresh, self._at(sigma), self.mask, self.copies)

    def evaluate(self, denoise: EvaluateStep) -> EvaluateStep:
        """`denoise`, with the image outside the mask."""

        def masked(k: int, z: Tensor, sigma: Tensor) -> Tensor:
            state = _blended(z, self._at(sigma), self.mask, self.copies)
            return _blended(denoise(k, state, sigma), self.clean, self.mask, self.copies)

        return masked

    def finish(self, final: Tensor) -> Tensor:
        """Results (n * B, C, *S): `clean`, to the bit, where the mask is 0."""
        return _composed(final, self.clean, self.mask, self.copies)

    def _at(self, sigma: Tensor) -> Tensor:
        return self.outside(sigma.to(self.noise), self.noise, self.clean.to(self.noise))


RegionRun = MaskedRun | RenoisedRun


def check_mask(mask: Tensor, latents: Tensor) -> None:
    """Raises ValueError unless `mask` is one (B, 1, *S) for each of the latents (B, C, *S)."""
    check_shape(mask, "The mask", len(latents), 1, *latents.shape[2:])


def _blended(inside: Tensor, outside: Tensor, mask: Tensor, copies: int) -> Tensor:
    mask = tile(mask.to(inside), copies)
    return inside * mask + tile(outside.to(inside), copies) * (1 - mask)


def _composed(inside: Tensor, outside: Tensor, mask: Tensor, copies: int) -> Tensor:
    """Blended, and the outside itself where the mask is 0."""
    untouched = tile((mask == 0).to(inside.device), copies).expand_as(inside)
    blended = _blended(inside, outside, mask, copies)
    return torch.where(untouched, tile(outside.to(inside), copies), blended)
