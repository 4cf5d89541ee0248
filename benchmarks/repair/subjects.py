"""Subjects of the repair benchmark: the scenes of each model, and the rule of the loop on them."""

from __future__ import annotations

from dataclasses import dataclass

from ..detection.sections import SECTIONS, Plan
from .loop import Loop

__all__ = ["SUBJECTS", "Subject"]


@dataclass(frozen=True)
class Subject:
    """A model's scenes, others to choose the rule of the loop on, and that rule as chosen."""

    scenes: Plan
    choosing: Plan
    rule: Loop
    grows: tuple[float, ...]


SUBJECTS = {
    "digits": Subject(
        SECTIONS["digits"], SECTIONS["choice"], Loop(threshold=0.11, grow=4.0), (2.0, 4.0, 8.0)
    ),
    "letters": Subject(
        SECTIONS["letters"],
        Plan("letters", 1.0, 8500, 128),
        Loop(threshold=0.06, grow=1.0, minimum_area=3),
        (0.0, 1.0, 2.0),
    ),
}
