"""Saves and restores the state that guidance functions keep in closures, such as APG's momentum.

Extra calls of the model between two steps of a run then leave that state as they found it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import CellType
from typing import Any

from torch import Tensor

from ...bayesdiff_core.solver_run import tile

__all__ = ["preserve_state"]


@contextmanager
def preserve_state(model_options: dict[str, Any], batch: int, copies: int = 1) -> Iterator[None]:
    """Undo at the end what functions among the options changed in their variables.

    Inside, what they keep of a batch of latents is repeated for its `copies`, tile-major.
    """
    saved = [(cell, cell.cell_contents) for cell in _cells(model_options)]
    try:
        for cell, value in saved:
            if copies > 1 and isinstance(value, Tensor) and value.ndim > 3 and len(value) == batch:
                cell.cell_contents = tile(value, copies)
        yield
    finally:
        for cell, value in saved:
            cell.cell_contents = value


def _cells(model_options: dict[str, Any]) -> Iterator[CellType]:
    for option in model_options.values():
        for function in option if isinstance(option, list) else [option]:
            for cell in getattr(function, "__closure__", None) or ():
                try:
                    cell.cell_contents  # noqa: B018
                except ValueError:  # not yet assigned
                    continue
                yield cell
