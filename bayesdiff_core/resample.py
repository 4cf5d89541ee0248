"""Sample a region again and leave the rest of the image alone, to the bit.

Outside the mask the recorded trajectory is replayed: at every evaluation the solver sees the
recorded state there and the recorded prediction, and the result is the recorded result. Inside,
fresh noise is put around the recorded denoised prediction of the starting step and the same solver
runs on. On small models this repaired more than noising the final image did, and drawing
x_t ~ N(E x_t, Var x_t), as Kou et al. (2024, section 4.2) propose, repaired nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .process import EvaluateStep, tile
from .recording import Recording

__all__ = ["MaskedRun", "Renoise", "choose"]

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

    def start(self, renoise: Renoise, noise: Tensor) -> Tensor:
        """Initial states (n * B, C, *S) from fresh `noise` of that shape."""
        k = self.first_evaluation
        prediction = self._recorded(self.recording.denoised[k], noise)
        fresh = renoise(self.sigmas[0].to(noise), noise, prediction)
        return self._blend(fresh, self.recording.states[k])

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
        blended = self._blend(final, self.recording.final)
        outside = tile((self.mask == 0).to(final.device), self.copies).expand_as(final)
        return torch.where(outside, self._recorded(self.recording.final, final), blended)

    def original_predictions(self) -> Tensor:
        """Recorded predictions (E', B, C, *S) over the same evaluations, to compare with."""
        return self.recording.denoised[self.first_evaluation :]

    def _recorded(self, recorded: Tensor, like: Tensor) -> Tensor:
        return tile(recorded.to(like), self.copies)

    def _blend(self, inside: Tensor, recorded: Tensor) -> Tensor:
        mask = tile(self.mask.to(inside), self.copies)
        return inside * mask + self._recorded(recorded, inside) * (1 - mask)


def choose(scores: Tensor, original: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Index (B,) of the candidate with the lowest score (N, B), and which samples (B,) improved.

    Where `original` (B,) is given and nothing falls below it, the sample did not improve and keeps
    its original. NaN scores never win.
    """
    scores = scores.nan_to_num(nan=float("inf"))
    best = scores.argmin(0)
    if original is None:
        return best, torch.ones_like(best, dtype=torch.bool)
    return best, scores.gather(0, best[None])[0] < original
