"""What became of a prompt, and whether that is as it should be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.soak.workflows import Workflow
from tests.support.host import EXTENSION_NAME
from tests.support.server import Execution

__all__ = ["Outcome", "digests_of", "judge", "slope_mb_per_100"]

SENTENCES = ("ValueError", "UntraceableSolverError", "LastLayerError", "UnsupportedSolverError")
MEMORY = ("OutOfMemoryError", "AcceleratorError")
WARM_UP = 40


@dataclass
class Outcome:
    """One prompt: `ending` is success, interrupted, refused, memory, raw, rejected or crash.

    A refusal is a sentence of the extension; raw is any other error. `left` is what it left
    behind, `differs` which of its results are not what they must be.
    """

    number: int
    ending: str
    parts: list[str]
    seconds: float
    error: str = ""
    where: str = ""
    left: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    cancelled_after: float | None = None
    prompt: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.ending in ("raw", "rejected", "crash") or bool(self.left or self.differs)

    @property
    def line(self) -> str:
        parts = ", ".join(self.parts)
        found = "; ".join([*self.left, *(f"differs: {name}" for name in self.differs)])
        told = " ".join(filter(None, [self.error.splitlines()[0] if self.error else "", found]))
        return f"{self.number:5} {self.seconds:6.1f} s  {self.ending:11} {parts}  {told[:160]}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(execution: Execution) -> tuple[str, str, str]:
    """(ending, message, place) of a prompt that the server has run."""
    error = execution.error
    if error is None:
        return execution.status, "", ""
    kind = error["exception_type"].rpartition(".")[2]
    message = f"{error['node_type']}: {kind}: {error['exception_message'].strip()}"
    frame = error["traceback"][-1]
    ours = EXTENSION_NAME in frame.split(",")[0] and "\n    raise " in frame
    if kind in MEMORY:
        return "memory", message, frame
    return ("refused" if ours and kind in SENTENCES else "raw"), message, frame


def digests_of(workflow: Workflow, execution: Execution) -> dict[str, str]:
    """The hashes that a finished prompt reported, by what was hashed."""
    return {
        name: execution.outputs[node_id]["digest"][0]
        for name, node_id in workflow.digests.items()
        if node_id in execution.outputs
    }


def slope_mb_per_100(series: list[float]) -> float | None:
    """Least-squares slope of memory by prompt, in MB per 100 prompts, after a warm-up."""
    late = series[WARM_UP:]
    if len(late) < 2:
        return None
    return round(100 * float(np.polyfit(np.arange(len(late)), late, 1)[0]), 1)


def temporary_mb(base_directory: Path) -> tuple[int, float]:
    """How many files of the extension lie in the temp folder, and how many MB they are."""
    sizes = [path.stat().st_size for path in (base_directory / "temp").glob("bayesdiff*")]
    return len(sizes), round(sum(sizes) / 2**20, 2)
