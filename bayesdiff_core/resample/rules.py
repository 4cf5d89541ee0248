"""Rules by which regions take a candidate or stay as they are.

To add a rule, name it in `RULES`; if it picks in a new way, write a class of the form of `Lowest`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..map_checks import as_float, check_labels, check_shape

__all__ = ["RULES", "Every", "First", "Lowest", "Rule", "choose_candidate", "paint"]


class Rule(Protocol):
    """Decides by scores which candidate every region takes.

    `signals` are what it compares by, of which the first one that is known counts. `one_round`
    says that further rounds cannot get better by it, `returns_all` that it returns every candidate
    in place of a choice.
    """

    @property
    def text(self) -> str: ...

    @property
    def signals(self) -> tuple[str, ...]: ...

    one_round: ClassVar[bool]
    returns_all: ClassVar[bool]

    def pick(self, scores: Tensor, keep: bool) -> Tensor:
        """Which candidate (B, R) each region takes, -1 for the original.

        `scores` (N + 1, B, R) have the original last and are NaN where nothing is known of it and
        for regions that an image does not have. With `keep` the original may stay.
        """

    def takes(self, picked: Tensor, labels: Tensor, copies: int, keep: bool) -> list[Tensor]:
        """Which candidate (B, *S) every pixel takes, for each batch that is returned.

        `labels` (B, *S) are the regions, `copies` the number N of candidates.
        """

    def heading(self, count: str, signal: str, keep: bool) -> str:
        """What was compared by which `signal`, for a report; `count` says how many."""


@dataclass(frozen=True)
class Lowest:
    """Every region takes the candidate with the lowest score there."""

    text: str
    signals: tuple[str, ...]

    one_round: ClassVar[bool] = False
    returns_all: ClassVar[bool] = False

    def pick(self, scores: Tensor, keep: bool) -> Tensor:
        _check_scores(scores)
        candidates = scores[:-1]
        absent = candidates.isnan().all(0)
        # An original of which nothing is known cannot stay for its score.
        original = scores[-1].nan_to_num(nan=float("inf")).flatten() if keep else None
        best, better = choose_candidate(candidates.flatten(1), original)
        picked = torch.where(better, best, -torch.ones_like(best)).view_as(absent)
        return picked.masked_fill(absent, -1)

    def takes(self, picked: Tensor, labels: Tensor, copies: int, keep: bool) -> list[Tensor]:
        return [paint(picked, labels)]

    def heading(self, count: str, signal: str, keep: bool) -> str:
        return f"{count}, chosen by {signal}: low is good"


@dataclass(frozen=True)
class First(Lowest):
    """Every region takes the first candidate, whatever its score."""

    one_round: ClassVar[bool] = True

    def pick(self, scores: Tensor, keep: bool) -> Tensor:
        _check_scores(scores)
        return torch.where(scores[0].isnan(), -1, 0)

    def heading(self, count: str, signal: str, keep: bool) -> str:
        return f"{count}, the first taken unseen; scores by {signal}: low is good"


@dataclass(frozen=True)
class Every(Lowest):
    """Every candidate is returned, and with `keep` the original last."""

    one_round: ClassVar[bool] = True
    returns_all: ClassVar[bool] = True

    def takes(self, picked: Tensor, labels: Tensor, copies: int, keep: bool) -> list[Tensor]:
        check_labels(labels, "The labels of regions", len(picked), "*S")
        outside = labels.new_full(labels.shape, -1)
        takes = [outside.masked_fill(labels > 0, i) for i in range(copies)]
        return [*takes, outside] if keep else takes

    def heading(self, count: str, signal: str, keep: bool) -> str:
        last = ", the original last" if keep else ""
        return f"{count}, all of them{last}; scores by {signal}: low is good"


def _check_scores(scores: Tensor) -> None:
    check_shape(scores, "The scores", "N + 1", "B", "R?")
    if len(scores) < 2:
        raise ValueError("The scores hold the original alone; give those of candidates before it.")


BEST_KNOWN = ("artifact", "contrast", "trajectory")

RULES: dict[str, Rule] = {
    "auto": Lowest("artifact where there is a negative conditioning, else trajectory", BEST_KNOWN),
    "contrast": Lowest("the candidate whose region shows the prompt best", ("contrast",)),
    "trajectory": Lowest("the candidate whose region was decided earliest", ("trajectory",)),
    "artifact": Lowest(
        "the candidate with the least of both together, as far as they are known", BEST_KNOWN
    ),
    "random": First("the first candidate, unseen", ("trajectory",)),
    "all": Every("every candidate, as a batch", BEST_KNOWN),
}


def choose_candidate(scores: Tensor, original: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The candidate with the lowest score.

    Arguments:
        scores: Of N candidates, shape (N, B); NaN never wins.
        original: Shape (B,); where nothing falls below it, the sample keeps its original.

    Returns:
        Index of the best candidate, shape (B,), and which samples improved, shape (B,).

    Raises:
        ValueError: If the shapes do not fit, or there is no candidate.
    """
    check_shape(scores, "The scores", "N", "B?")
    if original is not None:
        check_shape(original, "The scores of the original", scores.shape[1])
    scores = as_float(scores).nan_to_num(nan=float("inf"))
    best = scores.argmin(0)
    if original is None:
        return best, torch.ones_like(best, dtype=torch.bool)
    return best, scores.gather(0, best[None])[0] < original


def paint(picked: Tensor, labels: Tensor) -> Tensor:
    """Which candidate (B, *S) each pixel takes, from those of the regions (B, R); -1 outside.

    Raises ValueError where the shapes do not fit, or a label names a region that is not there.
    """
    check_labels(picked, "The picks", "B", "R?")
    check_labels(labels, "The labels of regions", len(picked), "*S")
    if not 0 <= int(labels.min()) <= int(labels.max()) <= picked.shape[1]:
        raise ValueError(
            f"Labels from {int(labels.min())} to {int(labels.max())} do not number the "
            f"{picked.shape[1]} regions that picked a candidate; take them from region_labels."
        )
    outside = picked.new_full((len(picked), 1), -1)
    table = torch.cat([outside, picked], 1)
    return table.gather(1, labels.flatten(1).long()).view(labels.shape)
