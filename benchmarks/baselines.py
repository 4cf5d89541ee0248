"""Maps that cost nothing and know no Bayes: what every uncertainty map has to beat."""

from __future__ import annotations

from torch import Tensor

from bayesdiff_core.flow_matching import FlowDenoiser
from bayesdiff_core.recording import Recorder
from bayesdiff_core.signals import late_evaluations, trajectory_variance
from bayesdiff_core.solver_run import SolverRun

from .metrics import gradient_magnitude

__all__ = ["baseline_maps", "guidance_difference", "total_variation"]


def baseline_maps(process: SolverRun) -> dict[str, Tensor]:
    """Maps (B, H, W) by name, from one plain run of `process`, without observers of its own.

    `noise shift` is the only one that costs something: a second run from a shifted start.
    """
    recorder = Recorder(process.trace.evaluations)
    process.observers.append(recorder)
    final = process.sample()
    recording = recorder.finish(final, process.sigmas)
    assert recording is not None
    late = recording.denoised[late_evaluations(len(recording.denoised)).start :]
    grey = final.mean(1)
    maps = {
        "gradient magnitude": gradient_magnitude(final),
        "total variation": total_variation(final),
        "mid-grey": 1 - grey.square(),
        "brightness": grey,
        "late variance of denoised": trajectory_variance(late),
        "noise shift": noise_shift(process, final),
    }
    if isinstance(process.denoiser, FlowDenoiser):
        z, sigma = recording.states[-1], recording.sigmas[-1]
        maps["|cond - uncond|"] = guidance_difference(process.denoiser, z, sigma)
    return maps


def total_variation(images: Tensor) -> Tensor:
    """|dx| + |dy| by forward differences (B, H, W), mean over channels."""
    dx = (images.roll(-1, -1) - images).abs()
    dy = (images.roll(-1, -2) - images).abs()
    dx[..., -1], dy[..., -1, :] = 0, 0
    return (dx + dy).mean(1)


def noise_shift(process: SolverRun, final: Tensor, size: float = 0.01) -> Tensor:
    """How far the image moves when the initial noise is shifted by a constant."""
    x = process.x
    process.x = x + size
    try:
        moved = process.replay(process.denoise)
    finally:
        process.x = x
    return (moved - final).square().mean(1).sqrt() / size


def guidance_difference(denoiser: FlowDenoiser, z: Tensor, sigma: Tensor) -> Tensor:
    """|D_c - D_u| (B, H, W) of a state (B, C, H, W), root mean square over channels."""
    difference = denoiser.conditional(z, sigma) - denoiser.unconditional(z, sigma)
    return difference.square().mean(1).sqrt()
