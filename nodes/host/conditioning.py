"""Processed conditionings with one row a sample, so that copies of a batch line up with it."""

from __future__ import annotations

from typing import Any

import comfy.conds
import torch

__all__ = ["Conds", "align", "select"]

Conds = dict[str, list[dict[str, Any]]]


def align(conds: Conds, batch: int) -> Conds:
    """Conditionings with every tensor brought to the rows of a batch, as the host does it.

    The host repeats the rows of a conditioning until they fill the batch. Done for the batch
    first, the rows of n tiled copies of it are n times the same.

    Arguments:
        conds: Processed conditionings, by side.
        batch: Number of rows.

    Returns:
        Copies of the conditionings, with `batch` rows each.
    """

    def brought(cond: dict[str, Any]) -> dict[str, Any]:
        cond = cond.copy()
        cond["model_conds"] = {
            # Hosts before 0.3.50 ask for a device as well; None leaves it where it is.
            name: value.process_cond(batch_size=batch, device=None, area=None)
            for name, value in cond["model_conds"].items()
        }
        if "mask" in cond:
            cond["mask"] = cond["mask"][:batch]
        return cond

    return {side: [brought(cond) for cond in entries] for side, entries in conds.items()}


def select(conds: Conds, rows: slice, batch: int) -> Conds:
    """Conditionings of a part of a batch.

    Arguments:
        conds: Processed conditionings, aligned to the batch.
        rows: The part.
        batch: Number of rows of the whole batch.

    Returns:
        Copies of the conditionings with these rows; a mask for all rows stays whole.
    """

    def chosen(cond: dict[str, Any]) -> dict[str, Any]:
        cond = cond.copy()
        cond["model_conds"] = {
            name: _rows(value, rows) for name, value in cond["model_conds"].items()
        }
        if "mask" in cond and len(cond["mask"]) == batch:
            cond["mask"] = cond["mask"][rows]
        return cond

    return {side: [chosen(cond) for cond in entries] for side, entries in conds.items()}


def _rows(cond: Any, rows: slice) -> Any:
    if isinstance(cond, comfy.conds.CONDConstant):
        return cond
    if isinstance(cond.cond, torch.Tensor):
        return cond._copy_with(cond.cond[rows])
    return cond._copy_with([value[rows] for value in cond.cond])
