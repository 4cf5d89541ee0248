"""Indexing IMAGE and LATENT batches; blocking outputs whose input is not connected."""

from __future__ import annotations

from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

__all__ = ["not_connected", "sample_of"]


def not_connected(name: str) -> ExecutionBlocker:
    """Stops the nodes behind an output whose input is not connected, with a sentence.

    Arguments:
        name: Of the output, and of the input.

    Returns:
        What the node gives there.
    """
    return ExecutionBlocker(
        f"The output {name} has nothing to give: connect the node's input of that name."
    )


def sample_of(batch: Any, index: Tensor) -> Any:
    """Some samples of a batch, with what belongs to them.

    Arguments:
        batch: IMAGE (B, H, W, C), or LATENT of B samples.
        index: Places in the batch, shape (b,).

    Returns:
        IMAGE or LATENT of b samples, in the order of the index.
    """
    if isinstance(batch, Tensor):
        return batch[index]
    samples = batch["samples"]
    chosen = {**batch, "samples": samples[index]}
    mask = batch.get("noise_mask")
    if mask is not None and len(mask) == len(samples):
        chosen["noise_mask"] = mask[index]
    if "batch_index" in batch:
        # Images that the list does not reach are counted on, as where there is no list.
        counted = [*batch["batch_index"], *range(len(batch["batch_index"]), len(samples))]
        chosen["batch_index"] = [counted[i] for i in index.tolist()]
    return chosen
