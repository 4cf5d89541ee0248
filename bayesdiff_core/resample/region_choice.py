"""Every region of a mask judged on its own: one region's failure does not undo another's success.

Candidates for all regions come from one run. Each connected region then takes one of them, or
keeps the original, by a rule (see `rules`); every pixel has exactly one source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..map_checks import check_shape
from ..recording import Recording, splice, take_pixels
from ..signals import Contrast, artifact
from ..uncertainty import SIGNALS, RunSettings, Signal, Uncertainty
from .candidates import Candidates, candidate_maps
from .regions import region_scores
from .rules import Rule

__all__ = ["Choice", "choose_regions", "composed_latents", "uncertainty_of"]


@dataclass(frozen=True)
class Choice:
    """What the regions of B images took from N candidates, low scores being good.

    `labels` (B, *S) are the regions. `scores` (N + 1, B, R) are those of the `signal`, the
    original last and NaN where nothing is known of it. `contrast` is that of all candidates and
    then of the original, ((N + 1) * B, *S), where it was looked at. `picked` (B, R) names a
    candidate, or -1 for the original. `takes` (B, *S) says the same for every pixel, once for each
    of the M batches that are returned.
    """

    signal: str
    contrast: Contrast | None
    labels: Tensor
    scores: Tensor
    picked: Tensor
    takes: list[Tensor]

    @property
    def improved(self) -> bool:
        return bool((self.picked >= 0).any())

    @property
    def untouched(self) -> Tensor:
        """Where the result is the original itself (M * B, 1, *S)."""
        return torch.cat(self.takes)[:, None] < 0


def choose_regions(
    found: Candidates,
    mask: Tensor,
    labels: Tensor,
    rule: Rule,
    *,
    keep: bool = True,
    contrast_of: Callable[[Tensor], Contrast] | None = None,
) -> Choice:
    """What every region takes by a rule.

    Arguments:
        found: N candidates of B images.
        mask: Weights of the pixels in [0, 1], shape (B, 1, *S).
        labels: The regions, from `region_labels`, shape (B, *S).
        rule: One of `RULES`.
        keep: Whether the original stays where no candidate beats it.
        contrast_of: Contrast of latents ((N + 1) * B, C, *S), tile-major, with the same noise for
            all copies; None where there is no prompt to compare with. Called where it is needed.

    Raises:
        ValueError: If nothing is known that the rule compares by, or a shape does not fit.
    """
    _check_found(found)
    image = found.original.shape
    check_shape(mask, "The mask", image[0], 1, *image[2:])
    check_shape(labels, "The labels of regions", image[0], *image[2:])
    signal = _known(rule.signals, found, contrast_of is not None)
    contrast = None
    if contrast_of is not None and signal in ("contrast", "artifact"):
        contrast = contrast_of(torch.cat([found.latents, found.original.to(found.latents)]))
        check_shape(contrast.map, "The contrast", image[0] * (found.copies + 1), *image[2:])
    maps = candidate_maps(found, contrast)[signal]
    scores = region_scores(maps, mask, labels.to(maps.device)).cpu()
    picked = rule.pick(scores, keep)
    takes = rule.takes(picked, labels, found.copies, keep)
    return Choice(signal, contrast, labels, scores, picked, takes)


def _check_found(found: Candidates) -> None:
    check_shape(found.original, "The original", "B", "C", "*S")
    batch, *rest = found.original.shape
    check_shape(found.latents, "The candidates", "N * B", *rest)
    check_shape(found.latents, "The candidates", max(found.copies, 1) * batch, *rest)
    check_shape(found.trajectory, "Their trajectory", len(found.latents), *rest[1:])
    if found.original_trajectory is not None:
        check_shape(found.original_trajectory, "The original's trajectory", batch, *rest[1:])


def composed_latents(found: Candidates, choice: Choice) -> Tensor:
    """The latents (M * B, C, *S) that the choice makes of the candidates."""
    return take_pixels(found.latents, found.original, choice.takes)


def uncertainty_of(
    before: Uncertainty | None,
    found: Candidates,
    choice: Choice,
    mask: Tensor,
    settings: RunSettings,
) -> Uncertainty:
    """The uncertainty of the result: new where a candidate was taken, else as it was.

    Arguments:
        before: Of the original, where there is one.
        found: The candidates.
        choice: What was taken of them.
        mask: Where they were sampled, shape (B, 1, *S).
        settings: Of the run that was done again.

    Returns:
        Of M * B images; its posterior is not known any more.
    """
    old = None if before is None else before.signals.get("trajectory")
    new = found.trajectory.cpu().float()
    signals: dict[str, Signal] = {}

    def composed(name: str, candidates: Tensor, original: Tensor) -> None:
        signals[name] = SIGNALS[name].of(take_pixels(candidates, original, choice.takes))

    if old is not None or choice.contrast is None:
        # Where nothing was sampled, nothing varied.
        original = torch.zeros_like(new[: len(found.original)]) if old is None else old.map
        composed("trajectory", new, original)
    if choice.contrast is not None:
        there, here = _apart(choice.contrast, len(new))
        composed("contrast", there.map, here.map)
        if old is not None:
            composed("artifact", artifact(there, new), artifact(here, old.map))
    return Uncertainty(
        signals, _spliced(found, choice, mask), None, replace(settings, method=None)
    )


def _known(signals: tuple[str, ...], found: Candidates, has_contrast: bool) -> str:
    known = {"trajectory"} | ({"contrast"} if has_contrast else set())
    if has_contrast and found.original_trajectory is not None:
        known.add("artifact")
    for signal in signals:
        if signal in known:
            return signal
    raise ValueError(
        f"Candidates cannot be compared by {' or '.join(signals)} here: give a positive and a "
        "negative conditioning, or compare by trajectory."
    )


def _apart(contrast: Contrast, count: int) -> tuple[Contrast, Contrast]:
    """That of the `count` candidates and that of the original, on the CPU."""
    maps, error = contrast.map.cpu().float(), contrast.error.cpu().float()
    return Contrast(maps[:count], error[:count]), Contrast(maps[count:], error[count:])


def _spliced(found: Candidates, choice: Choice, mask: Tensor) -> Recording | None:
    if found.before is None or found.recording is None:
        return None
    return splice(found.before, found.recording, mask, choice.takes)
