"""Copies of a batch in fewer at a time when memory is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

__all__ = ["COPIES", "Parts", "in_parts", "is_out_of_memory", "room_for"]

COPIES = "bayesdiff_copies"
"""Where a call of the model is told, in its transformer options, which copies it holds."""

T = TypeVar("T")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device's memory is exhausted.

    Arguments:
        error: Any error; newer hosts know more that say so.

    Returns:
        What the host makes of it.
    """
    known = getattr(comfy.model_management, "is_oom", None)
    return known(error) if known else isinstance(error, torch.cuda.OutOfMemoryError)


class Parts:
    """Work on copies of a batch, as many at once as there is room for.

    The room is an estimate. Where it was too high, half as many follow, and on; what fitted then
    is not exceeded again.
    """

    def __init__(self) -> None:
        self.fits = 1 << 30

    def of(self, copies: int, room: int, work: Callable[[int, int], T]) -> list[T]:
        """Do work on all copies.

        Arguments:
            copies: Number of copies.
            room: How many should fit at a time.
            work: Called with the first copy of a part and the number of its copies.

        Returns:
            What `work` gave for every part, in the order of the copies.

        Raises:
            Exception: What `work` raises; the host's error of exhausted memory only where a single
                copy does not fit.
        """
        results: list[T] = []
        first = 0
        while first < copies:
            count = min(self.fits, room, copies - first)
            try:
                results.append(work(first, count))
                first += count
                continue
            except Exception as error:
                if count == 1 or not is_out_of_memory(error):
                    raise
            # Out of the handler, whose traceback holds the tensors that did not fit.
            self.fits = count // 2
            comfy.model_management.soft_empty_cache()
        return results


def room_for(model: Any, batch: Tensor) -> int:
    """How many copies of a batch the host expects to fit into free memory.

    The estimate and its margin are those by which the host joins conditionings in one call.

    Arguments:
        model: Loaded, as the host's samplers get it.
        batch: One copy, shape (B, C, *S).

    Returns:
        Number of copies, at least 1.
    """
    needed = 1.5 * model.memory_required(list(batch.shape))
    # Newer hosts ask the patcher, which counts the weights that would make room as well.
    host = comfy.model_management
    get_free_memory = getattr(model.current_patcher, "get_free_memory", host.get_free_memory)
    return max(1, int(get_free_memory(batch.device) / max(needed, 1)))


def in_parts(model_options: dict[str, Any], batch: int) -> None:
    """Lets the model predict only as many copies of a batch at a time as fit.

    Guidance and solver still see all of them at once, so that neither what they remember nor the
    noise they draw depends on it.

    Arguments:
        model_options: Private options of one run, changed in place.
        batch: Number of latents of a copy, to which the conditionings are aligned.
    """
    parts = Parts()

    def predict(
        executor: Callable[..., list[Tensor]],
        model: Any,
        conds: list[Any],
        x: Tensor,
        timestep: Tensor,
        options: dict[str, Any],
    ) -> list[Tensor]:
        if len(x) <= batch or len(x) % batch:
            return executor(model, conds, x, timestep, options)

        def some(first: int, count: int) -> list[Tensor]:
            comfy.model_management.throw_exception_if_processing_interrupted()
            rows = slice(first * batch, (first + count) * batch)
            told = {**options["transformer_options"], COPIES: slice(first, first + count)}
            some_options = {**options, "transformer_options": told}
            return executor(model, conds, x[rows], timestep[rows], some_options)

        found = parts.of(len(x) // batch, room_for(model, x[:batch]), some)
        return found[0] if len(found) == 1 else [torch.cat(side) for side in zip(*found)]

    comfy.patcher_extension.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.CALC_COND_BATCH,
        "bayesdiff_parts",
        predict,
        model_options,
        is_model_options=True,
    )
