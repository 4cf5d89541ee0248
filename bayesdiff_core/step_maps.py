"""The uncertainty of a run at its single steps, read off the recorded trajectory.

At evaluation k the denoiser predicts the clean latent D_k. How far D_k still lies from the result
x_0 is what the run had not yet decided at that step:

    u_k = sqrt( mean over channels of (D_k - x_0)^2 )

a distance in the units of the space the solver sees. It falls along the run, last where the image
was undecided longest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .recording import Recording

__all__ = ["STEP_UNIT", "step_map", "step_totals"]

STEP_UNIT = "latent distance"


def step_map(recording: Recording, step: int) -> Tensor:
    """What was still undecided at one step: the root mean square over channels of D_k - x_0.

    Arguments:
        recording: Of a run with E evaluations.
        step: From 1 to E.

    Returns:
        Latent distance, float32, shape (B, *S).

    Raises:
        ValueError: If the run has no such step.
    """
    if not 1 <= step <= len(recording.denoised):
        raise ValueError(
            f"The run has the steps 1 to {len(recording.denoised)}, but step {step} was asked "
            "for; choose one of them, or 0 for the final map."
        )
    difference = recording.denoised[step - 1].float() - recording.final.float()
    return difference.square().mean(dim=1).sqrt()


def step_totals(recording: Recording) -> Tensor:
    """Root mean square over each image of what was undecided at each step.

    Arguments:
        recording: Of a run with E evaluations.

    Returns:
        Latent distance, float32, shape (B, E).
    """
    totals = [
        step_map(recording, step).flatten(1).square().mean(dim=1).sqrt()
        for step in range(1, len(recording.denoised) + 1)
    ]
    return torch.stack(totals, dim=1)
