"""The recorded trajectory of a run: what resampling needs to leave the rest of an image alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .map_checks import as_float, check_labels, check_shape, check_whole
from .tiling import tile

__all__ = ["Recorder", "Recording", "last_part", "splice", "take_pixels"]


@dataclass(frozen=True)
class Recording:
    """States z_k and denoised predictions D_k (E, B, C, *S) of a run on the CPU, and its result.

    `sigmas` (E,) are the noise levels of the evaluations, `schedule` (steps + 1,) the solver's
    steps and `final` (B, C, *S) the state it ended in. States are in the space the solver sees.
    """

    states: Tensor
    denoised: Tensor
    sigmas: Tensor
    schedule: Tensor
    final: Tensor

    def __post_init__(self) -> None:
        check_shape(self.final, "The final state of a recording", "B?", "C", "*S")
        check_shape(self.states, "The recorded states", "E", *self.final.shape)
        check_shape(self.denoised, "The recorded predictions", *self.states.shape)
        check_shape(self.sigmas, "The recorded noise levels", len(self.states))
        check_shape(self.schedule, "The recorded schedule", "steps + 1")

    @property
    def steps(self) -> int:
        return len(self.schedule) - 1

    def start_of(self, denoise: float) -> tuple[int, int]:
        """(step, evaluation) at which the last fraction `denoise` of the schedule begins."""
        step = len(self.schedule) - len(last_part(self.schedule, denoise))
        distance = (self.sigmas - self.schedule[step]).abs()
        nearest = distance <= distance.min() * (1 + 1e-6)
        # A two-stage solver ends a step at the level at which the next one begins.
        return step, int(nearest.nonzero()[-1])

    def select(self, index: int | slice | Tensor) -> Recording:
        """The recording of some samples of the batch."""
        keep = slice(index, index + 1) if isinstance(index, int) else index
        return Recording(
            self.states[:, keep], self.denoised[:, keep], self.sigmas, self.schedule,
            self.final[keep],
        )  # fmt: skip


def last_part(schedule: Tensor, denoise: float) -> Tensor:
    """The last share `denoise` of a schedule (steps + 1,), at least one step.

    Raises:
        ValueError: If the share does not lie in (0, 1].
    """
    if not 0 < denoise <= 1:
        raise ValueError(f"denoise must lie in (0, 1], got {denoise}.")
    steps = len(schedule) - 1
    return schedule[min(round((1 - denoise) * steps), steps - 1) :]


def splice(
    before: Recording, after: Recording, mask: Tensor, takes: Sequence[Tensor]
) -> Recording:
    """The recording as if the run had taken the chosen candidates from the start.

    Arguments:
        before: Of B samples, over E evaluations.
        after: Of N candidates of each, tile-major (N * B), over the last E' of them.
        mask: Where the candidates were sampled, in [0, 1], shape (B, 1, *S).
        takes: Which candidate (B, *S) every pixel takes, -1 for what was before; one of them for
            each of the M batches of the result.

    Returns:
        Of M * B samples, tile-major, over E evaluations.

    Raises:
        ValueError: If the shapes do not fit.
    """
    _check_candidates(after.final, before.final, takes)
    check_shape(mask, "The mask", len(before.final), 1, *before.final.shape[2:])
    if len(after.states) > len(before.states):
        raise ValueError(
            f"The candidates have {len(after.states)} evaluations but the run they are to be a "
            f"part of {len(before.states)}; pass the recording that they were sampled from."
        )
    copies = len(after.final) // len(before.final)
    first = len(before.states) - len(after.states)
    inside = tile(as_float(mask).cpu(), copies)

    def joined(old: Tensor, new: Tensor) -> Tensor:
        steps = []
        for recorded, candidates in zip(old[first:], new, strict=True):
            blended = candidates * inside + tile(recorded, copies) * (1 - inside)
            steps.append(take_pixels(blended, recorded, takes))
        kept = old[:first].repeat(1, len(takes), *[1] * (old.ndim - 2))
        return torch.cat([kept, torch.stack(steps).to(old)])

    return Recording(
        joined(before.states, after.states),
        joined(before.denoised, after.denoised),
        before.sigmas,
        before.schedule,
        take_pixels(after.final, before.final, takes),
    )


def take_pixels(candidates: Tensor, original: Tensor, takes: Sequence[Tensor]) -> Tensor:
    """Pixels of candidates (N * B, *K, *S), tile-major, where a take (B, *S) names one.

    Elsewhere, where it is -1, those of `original` (B, *K, *S), with any number of axes K between
    batch and space. Returns (M * B, *K, *S) for M takes.

    Raises ValueError where shapes do not fit, or a take names a candidate that is not there.
    """
    _check_candidates(candidates, original, takes)
    stack = candidates.to(original).unflatten(0, (-1, len(original)))
    return torch.cat([_taken(stack, original, take.to(original.device)) for take in takes])


def _check_candidates(candidates: Tensor, original: Tensor, takes: Sequence[Tensor]) -> None:
    check_shape(original, "The original", "B", "*S")
    check_shape(candidates, "The candidates", "N * B", *original.shape[1:])
    copies = max(len(candidates) // len(original), 1)
    check_shape(candidates, "The candidates", copies * len(original), *original.shape[1:])
    if not takes:
        raise ValueError("No take says which candidates to use; pass at least one.")
    for take in takes:
        check_shape(take, "A take", "B", "*S")
        space = original.shape[max(original.ndim - take.ndim + 1, 1) :]
        check_labels(take, "A take", len(original), *space)
        if int(take.max()) >= copies:
            raise ValueError(
                f"A take names candidate {int(take.max())}, but there are {copies}, counted from "
                "0; pass the candidates it was chosen among."
            )


def _taken(stack: Tensor, original: Tensor, take: Tensor) -> Tensor:
    while take.ndim < original.ndim:
        take = take.unsqueeze(1)
    index = take.clamp(min=0).long().expand_as(original)
    return torch.where(take < 0, original, stack.gather(0, index[None])[0])


@dataclass
class Recorder:
    """Observer that keeps states and predictions on the CPU within `budget_mb` megabytes.

    Float32 while that fits, float16 while that does, nothing beyond: `note` then says so. None
    `evaluations` are those of a run that nobody knows the length of beforehand.
    """

    evaluations: int | None
    budget_mb: float = 2048.0
    note: str = ""
    _states: list[Tensor] = field(default_factory=list)
    _denoised: list[Tensor] = field(default_factory=list)
    _sigmas: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.evaluations is not None:
            check_whole(self.evaluations, "The number of evaluations")

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        self._sigmas.append(float(sigma))
        dtype = self._dtype(z)
        for kept, new in ((self._states, z), (self._denoised, denoised)):
            if dtype is None:
                kept.clear()
                continue
            if kept and kept[0].dtype != dtype:
                kept[:] = [tensor.to(dtype) for tensor in kept]
            kept.append(new.to("cpu", dtype, copy=True))

    def _dtype(self, z: Tensor) -> torch.dtype | None:
        evaluations = len(self._sigmas) if self.evaluations is None else self.evaluations
        megabytes = 2 * evaluations * z.numel() * 4 / 2**20
        if megabytes <= self.budget_mb:
            return torch.float32
        if megabytes / 2 <= self.budget_mb:
            return torch.float16
        self.note = (
            f"The trajectory needs {megabytes / 2:.0f} MB and the budget is {self.budget_mb:.0f} "
            "MB, so it was not recorded: MaskedResample will re-noise the image instead."
        )
        return None

    def finish(self, final: Tensor, schedule: Tensor) -> Recording | None:
        """The recording, or None when it did not fit its budget."""
        if not self._states:
            return None
        return Recording(
            torch.stack(self._states),
            torch.stack(self._denoised),
            torch.tensor(self._sigmas),
            schedule.detach().to("cpu", torch.float32, copy=True),
            final.detach().to("cpu", torch.float32, copy=True),
        )
