"""Where a region starts from in the host: the core's noise modes, with and without a recording."""

from __future__ import annotations

from dataclasses import replace

import comfy.model_patcher
from torch import Tensor

from ....bayesdiff_core.last_layer import check_fingerprint
from ....bayesdiff_core.methods.posterior_moves import draw_moves, posterior_moves
from ....bayesdiff_core.resample.masked_run import MaskedRun, Renoise, RenoisedRun
from ..feature_tap import Tap
from ..last_layer import find_layer
from ..solver_run import HostProcess, SamplerCall
from ..validation import check_options
from .options import ResampleOptions

__all__ = ["RegionRun", "recorded_start", "renoised_start"]

RegionRun = MaskedRun | RenoisedRun


def recorded_start(
    run: MaskedRun, repair: ResampleOptions, call: SamplerCall, renoise: Renoise, noise: Tensor
) -> tuple[RegionRun, Tensor]:
    """The run to be done and its initial states (n * B, C, *S), from fresh `noise` of that shape.

    Raises ValueError where the noise mode needs what the recording or the posterior lacks.
    """
    if repair.moves_by_posterior:
        moves = _moves(run, repair, call)
        along = repair.noise_mode == "posterior_tangents"
        return run, run.moved(draw_moves(moves, noise, along))
    if repair.noise_mode == "img2img":
        return renoised_start(run.clean, run.mask, run.sigmas[0], renoise, noise)
    return run, run.start(renoise, noise, repair.noise_mode)


def renoised_start(
    clean: Tensor, mask: Tensor, sigma: Tensor, renoise: Renoise, noise: Tensor
) -> tuple[RenoisedRun, Tensor]:
    """The same for an image (B, C, *S) without a recording; outside it is noised as a whole."""
    batch = len(clean)
    run = RenoisedRun(clean.to(noise), mask, renoise, noise[:batch], len(noise) // batch)
    return run, run.start(renoise, sigma, noise)


def _moves(run: MaskedRun, repair: ResampleOptions, call: SamplerCall) -> Tensor:
    """Moves (K, B, C, *S) of the recorded state at which the run starts.

    Raises ValueError when the posterior was fitted on another last layer.
    """
    assert repair.posterior is not None
    recording = run.recording
    # The layer is laid open for this call alone.
    options = comfy.model_patcher.create_model_options_clone(call.model_options)
    check_options(options)
    whole = replace(
        call,
        x=recording.states[0].to(call.x),
        sigmas=recording.schedule.to(call.sigmas),
        extra_args={**call.extra_args, "model_options": options},
        callback=None,
        copies=1,
    )
    guider = call.model_k.inner_model
    process = HostProcess(whole)
    layer = find_layer(guider.inner_model, guider.conds, whole.x, whole.sigmas[0], options)
    check_fingerprint(repair.posterior, layer.fingerprint(whole.x.device))
    process.denoiser.tap = Tap(layer)
    process.denoiser.tap.install(options)
    return posterior_moves(process, repair.posterior, recording, run.first_evaluation)
