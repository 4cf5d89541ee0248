"""How hypothesis searches: the same examples every time, and no folder of its own in the tree."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.configuration import set_hypothesis_home_dir

__all__ = ["searched"]

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "bayesdiff-hypothesis")


def searched(examples: int) -> settings:
    """Decorates a test that hypothesis calls with so many examples."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
