"""Candidates for a region: the core's masked runs inside ComfyUI's sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_patcher
import torch
from torch import Tensor

from ....bayesdiff_core.methods.posterior_moves import posterior_moves
from ....bayesdiff_core.recording import last_part
from ....bayesdiff_core.resample.candidates import Candidates, sample_candidates
from ....bayesdiff_core.resample.masked_run import MaskedRun
from ....bayesdiff_core.resample.noise_modes import Start, Starting, renoised_start
from ....bayesdiff_core.signals import Contrast
from ....bayesdiff_core.tiling import tile
from ..contrast import contrast_map, has_two_sides
from ..feature_tap import open_last_layer
from ..solver_run import CallSampler, HostSolver, SamplerCall
from .plan import ResampleOptions, SamplingPlan

__all__ = ["CandidateSampler", "ContrastOf", "Settle", "Settled"]

ContrastOf = Callable[[Tensor], Contrast]


@dataclass(frozen=True)
class Settled:
    """What is made of candidates.

    Attributes:
        latents: M batches, shape (M * B, C, *S).
        untouched: Where they stay as they were, boolean, shape (M * B, 1, *S).
    """

    latents: Tensor
    untouched: Tensor


Settle = Callable[[Candidates, ContrastOf | None], Settled]
"""Makes the returned latents of clean candidates, while the model is loaded.

The second argument judges latents ((N + 1) * B, C, *S), tile-major, all copies with the same
noise; it is None where there is no prompt to compare with.
"""


class CandidateSampler(CallSampler):
    """Runs candidates by a plan inside a mask, then settles them.

    Arguments:
        plan: The run to repeat.
        mask: Where to sample again, in [0, 1], shape (B, 1, *S).
        options: What the user asks for.
        settle: Makes the returned latents of the candidates.
        turn: Number of the round; each has noise of its own.

    Attributes:
        settled: The result, once it has run.
        replayed: Whether the model saw the recorded surroundings.
    """

    settled: Settled
    replayed: bool

    def __init__(
        self,
        plan: SamplingPlan,
        mask: Tensor,
        options: ResampleOptions,
        settle: Settle,
        turn: int = 0,
    ) -> None:
        super().__init__(plan.sampler, plan.name, self._run)
        self.plan = plan
        self.mask = mask
        self.options = options
        self.settle = settle
        self.seed = (options.seed + turn) % (1 << 64)

    @property
    def sigmas(self) -> Tensor:
        """The part of the schedule that runs again, shape (steps to run + 1,)."""
        return last_part(self.plan.schedule, self.options.denoise)

    def sample(
        self, guider: Any, sigmas: Tensor, extra_args: dict[str, Any], *rest: Any
    ) -> Tensor:
        """Called by the host as a sampler; settles the candidates while the model is loaded.

        Arguments:
            guider: Of the run, with its model loaded.
            sigmas: Noise levels to run, as in `sigmas`.
            extra_args: Keyword arguments of the model's calls, private to the run.
            rest: What else the host hands to a sampler.

        Returns:
            Settled latents in the space the model sees, shape (M * B, C, *S).

        Raises:
            ValueError: If the sampler cannot run a part of its schedule, the noise mode has
                nothing to start from, or the posterior belongs to another layer.
        """
        latents = super().sample(guider, sigmas, extra_args, *rest)
        model, conds = guider.inner_model, guider.conds
        original = self._found.original.to(latents)
        leave = model.model_sampling.inverse_noise_scaling
        found = replace(self._found, latents=latents, original=leave(sigmas[-1], original))

        def contrast_of(judged: Tensor) -> Contrast:
            return contrast_map(
                model, conds, judged, extra_args["model_options"], self.options.seed,
                copies=found.copies + 1,
            )  # fmt: skip

        self.settled = self.settle(found, contrast_of if has_two_sides(conds) else None)
        return self.settled.latents

    def _run(self, call: SamplerCall) -> Tensor:
        call.serve_copies()
        x, model_k, copies = call.x, call.model_k, self.options.candidates
        call = replace(call, x=tile(x, copies), copies=copies)
        solver = self.plan.solvers.of(call)
        image = model_k.latent_image.to(x)
        recorded = self._recorded_run(solver)
        region, start = self._start(recorded, call, image)
        self.replayed = isinstance(region, MaskedRun)
        self._found = sample_candidates(
            region,
            solver.run(start),
            self.plan.schedule,
            image,
            recorded,
            self.options.budget_mb,
        )
        return self._found.latents

    def _recorded_run(self, solver: HostSolver) -> MaskedRun | None:
        """The recorded run from the evaluation at which the sampler takes it up again.

        None where the sampler does not come by the recorded states. Raises ValueError where it
        was expected to, or cannot run a part of its schedule at all.
        """
        if solver.adaptive:
            raise ValueError(
                f"The sampler '{solver.name}' chooses its steps by the image, so a part of its "
                "run cannot be done again. Sample the image with another one, such as dpmpp_2m."
            )
        if solver.trace.evaluations == 0:
            raise ValueError(
                f"The sampler '{solver.name}' asks for nothing on the last "
                f"{self.options.denoise:.0%} of this schedule. Raise denoise, or sample the image "
                "in more steps."
            )
        if self.plan.recording is None:
            return None
        options = self.options
        run = MaskedRun(self.plan.recording, self.mask, options.denoise, options.candidates)
        run = replace(run, evaluations=solver.trace.evaluations)
        recorded, sigmas = run.recording.sigmas[run.first_evaluation :], solver.trace.sigmas
        if len(sigmas) == len(recorded) and torch.allclose(sigmas, recorded, rtol=1e-3, atol=1e-4):
            return run
        if not self.plan.recorded_sampler:
            return None
        raise ValueError(
            f"The sampler '{solver.name}' takes other steps when it runs only the last "
            f"{run.denoise:.0%} of its schedule. Resample with denoise 1, or sample the image "
            "with another sampler, such as dpmpp_2m."
        )

    def _start(self, recorded: MaskedRun | None, call: SamplerCall, image: Tensor) -> Starting:
        """The region's run and the candidates' initial states (N * B, C, *S)."""
        guider, sigmas = call.model_k.inner_model, call.sigmas
        scaling = guider.inner_model.model_sampling.noise_scaling
        full = self.max_denoise(guider, sigmas)

        def renoise(sigma: Tensor, noise: Tensor, clean: Tensor) -> Tensor:
            return scaling(sigma, noise, clean, full and bool(sigma >= sigmas[0]))

        generator = torch.Generator("cpu").manual_seed(self.seed)
        noise = torch.randn(call.x.shape, generator=generator).to(call.x)
        if recorded is not None:
            moves = lambda: self._moves(recorded, call)  # noqa: E731
            return self.options.mode.begin(Start(recorded, noise, renoise, moves))
        if self.options.mode.needs_posterior:
            raise ValueError(
                f"The noise mode {self.options.noise_mode} moves a recorded state, and there is "
                "none with this sampler and schedule. Use the noise mode denoised, or leave "
                "sampler_name, scheduler and steps as recorded."
            )
        if sigmas[-1] > 0:
            raise ValueError(
                "The run of this image stopped before the end of its schedule, so there is no "
                "finished image to start from. Sample to the end, or raise recording_mb."
            )
        return renoised_start(image, self.mask, sigmas[0], renoise, noise)

    def _moves(self, run: MaskedRun, call: SamplerCall) -> Tensor:
        """Moves (K, B, C, *S) of the recorded state at which the run starts.

        Raises ValueError when the posterior was fitted on another last layer.
        """
        assert self.options.posterior is not None
        recording = run.recording
        # The layer is open for this call alone.
        options = comfy.model_patcher.create_model_options_clone(call.model_options)
        whole = replace(
            call,
            x=recording.states[0].to(call.x),
            sigmas=recording.schedule.to(call.sigmas),
            extra_args={**call.extra_args, "model_options": options},
            callback=None,
            copies=1,
        )
        guider = call.model_k.inner_model
        solver = self.plan.solvers.of(whole)
        solver.denoiser.tap = open_last_layer(
            guider.inner_model, guider.conds, whole.x, whole.sigmas[0], options,
            self.options.posterior,
        )  # fmt: skip
        return posterior_moves(
            solver.run(), self.options.posterior, recording, run.first_evaluation
        )
