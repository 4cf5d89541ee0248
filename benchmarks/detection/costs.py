"""What each signal costs beyond the run itself, in guided evaluations per step."""

from __future__ import annotations

from bayesdiff_core.signals import CONTRAST_LEVELS

from ..recorded_runs import STEPS
from .candidate_signals import FIRST_LEVELS, LEVEL_SETS

__all__ = ["cost_of"]

WHOLE = 2 * len(CONTRAST_LEVELS)
CALLS = {
    "artifact": WHOLE,
    "contrast": WHOLE,
    "contrast, first version": 2 * len(FIRST_LEVELS),
    "contrast, wrong prompts": WHOLE,
    "contrast, none and wrong": WHOLE * 3 // 2,
    "contrast, two draws": 2 * WHOLE,
    "contrast, last layer's part": WHOLE,
    "|cond - uncond|": 1,
    "|cond - uncond|, all levels": WHOLE,
    "error with the prompt alone": WHOLE // 2,
    **{f"contrast, level {t:g} alone": 2 for t in CONTRAST_LEVELS},
    **{f"contrast, weight {power}": WHOLE for power in ("t^2", "1")},
    **{f"contrast, window radius {radius}": WHOLE for radius in (0, 2, 4)},
    **{name: 2 * len(levels) for name, levels in LEVEL_SETS.items()},
}
"""Network calls of one side beyond the run itself; the other signals below cost none."""

EVALUATIONS = {
    "posterior": 15,
    "ensemble M=5": 150,
    "bayesdiff S=10": 290,
    "bayesdiff, skip 5": 50,
}
"""Guided evaluations beyond the run itself, of 30 steps."""


def cost_of(name: str, guidance_scale: float) -> float:
    """Guided evaluations a step beyond the run itself; of a sum, that of its parts."""
    sides = 1 if guidance_scale == 1 else 2
    if " + " in name:
        first = name.split(" + ")[0]
        calls = CALLS[first] + (WHOLE // 2 if "wrong" in name else 0)
        return (calls / sides + (15 if "posterior" in name else 0)) / STEPS
    for key, evaluations in EVALUATIONS.items():
        if name.startswith(key):
            return evaluations / STEPS
    return CALLS.get(name, 0) / sides / STEPS
