"""Candidates for a region: the core's masked runs inside the host's sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ....bayesdiff_core.recording import Recorder, Recording
from ....bayesdiff_core.resample.masked_run import MaskedRun, last_part
from ....bayesdiff_core.signals import TrajectoryVariance, late_evaluations, trajectory_variance
from ....bayesdiff_core.solver_run import tile
from ..conditioning import align
from ..memory import in_parts
from ..solver_run import HostProcess, SamplerCall
from .options import ResampleOptions, SamplingPlan
from .starts import RegionRun, recorded_start, renoised_start

__all__ = ["CandidateSampler", "Candidates"]


@dataclass(frozen=True)
class Candidates:
    """N candidates of B images, while the model is still loaded.

    `latents` (N * B, C, *S), tile-major, and `original` (B, C, *S) are clean, in the space the
    model sees. `trajectory` (N * B, *S) is the variance of their predictions; of the original
    (B, *S) it is known where there is a recording on the same steps, `before`, whose evaluations
    from `first` on the candidates' `recording` replaces.
    """

    guider: Any
    options: dict[str, Any]
    latents: Tensor
    original: Tensor
    copies: int
    trajectory: Tensor
    original_trajectory: Tensor | None
    recording: Recording | None
    before: Recording | None
    first: int


Settle = Callable[[Candidates], Tensor]
"""Makes of candidates the latents (M * B, C, *S) that are returned, in the same space."""


class CandidateSampler(comfy.samplers.KSAMPLER):
    """Runs the candidates with a way's sampler inside `mask` (B, 1, *S), then settles them.

    `turn` counts the rounds; each has noise of its own. `replayed` says, once it has run, whether
    the model saw the recorded surroundings.
    """

    replayed: bool

    def __init__(
        self,
        way: SamplingPlan,
        mask: Tensor,
        repair: ResampleOptions,
        settle: Settle,
        turn: int = 0,
    ) -> None:
        sampler = way.sampler
        super().__init__(self._run, sampler.extra_options, sampler.inpaint_options)
        self.way = way
        self.mask = mask
        self.repair = repair
        self.settle = settle
        self.seed = (repair.seed + turn) % (1 << 64)

    @property
    def sigmas(self) -> Tensor:
        """The part of the schedule that runs again."""
        return last_part(self.way.schedule, self.repair.denoise)

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        self._image = latent_image
        latents = super().sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask,
            disable_pbar,
        )  # fmt: skip
        leave = model_wrap.inner_model.model_sampling.inverse_noise_scaling
        return self.settle(
            replace(
                self._found,
                latents=latents,
                original=leave(sigmas[-1], self._found.original.to(latents)),
            )
        )

    def _run(
        self,
        model_k: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        disable: bool,
        **options: Any,
    ) -> Tensor:
        guider = model_k.inner_model
        guider.conds = align(guider.conds, len(x))
        copies = self.repair.candidates
        in_parts(extra_args["model_options"], len(x))
        call = SamplerCall(
            self.way.sampler.sampler_function,
            self.way.name,
            model_k,
            tile(x, copies),
            sigmas,
            extra_args,
            callback,
            disable,
            options,
            copies=copies,
        )
        recorded = self._recorded_run(HostProcess(call))
        run, start = self._start(recorded, call, self._noise(x))
        process = HostProcess(replace(call, x=start))
        first, total = self._place(recorded, process.trace.evaluations)
        trajectory = TrajectoryVariance(total)
        recorder = Recorder(total - first, self.repair.budget_mb)
        process.observers = [_Later(trajectory, first), recorder]
        final = run.finish(process.sample(run.evaluate(process.denoise)))
        before = None if recorded is None else recorded.recording
        self.replayed = isinstance(run, MaskedRun)
        self._found = Candidates(
            guider,
            extra_args["model_options"],
            final,
            self._clean(x) if before is None else before.final,
            copies,
            trajectory.map(),
            None if before is None else _late_variance(before, first),
            recorder.finish(final, self.way.schedule),
            before,
            first,
        )
        return final

    def _recorded_run(self, process: HostProcess) -> MaskedRun | None:
        """The recorded run from the evaluation at which the sampler takes it up again.

        None where the sampler does not come by the recorded states. Raises ValueError where it
        was expected to, or cannot run a part of its schedule at all.
        """
        if process.adaptive:
            raise ValueError(
                f"The sampler '{process.name}' chooses its steps by the image, so a part of its "
                "run cannot be done again. Sample the image with another one, such as dpmpp_2m."
            )
        if self.way.recording is None:
            return None
        repair = self.repair
        run = MaskedRun(self.way.recording, self.mask, repair.denoise, repair.candidates)
        run = replace(run, evaluations=process.trace.evaluations)
        recorded, sigmas = run.recording.sigmas[run.first_evaluation :], process.trace.sigmas
        if len(sigmas) == len(recorded) and torch.allclose(sigmas, recorded, rtol=1e-3, atol=1e-4):
            return run
        if not self.way.recorded_sampler:
            return None
        raise ValueError(
            f"The sampler '{process.name}' takes other steps when it runs only the last "
            f"{run.denoise:.0%} of its schedule. Resample with denoise 1, or sample the image "
            "with another sampler, such as dpmpp_2m."
        )

    def _place(self, recorded: MaskedRun | None, evaluations: int) -> tuple[int, int]:
        """The first of so many evaluations among those of the whole run, and how many that has."""
        if recorded is not None:
            return recorded.first_evaluation, len(recorded.recording.sigmas)
        total = round(evaluations * (len(self.way.schedule) - 1) / (len(self.sigmas) - 1))
        return total - evaluations, total

    def _start(
        self, recorded: MaskedRun | None, call: SamplerCall, noise: Tensor
    ) -> tuple[RegionRun, Tensor]:
        guider, sigmas = call.model_k.inner_model, call.sigmas
        scaling = guider.inner_model.model_sampling.noise_scaling
        full = self.max_denoise(guider, sigmas)

        def renoise(sigma: Tensor, noise: Tensor, clean: Tensor) -> Tensor:
            return scaling(sigma, noise, clean, full and bool(sigma >= sigmas[0]))

        if recorded is not None:
            return recorded_start(recorded, self.repair, call, renoise, noise)
        if self.repair.moves_by_posterior:
            raise ValueError(
                f"The noise mode {self.repair.noise_mode} moves a recorded state, and there is "
                "none with this sampler and schedule. Use the noise mode denoised, or leave "
                "sampler_name, scheduler and steps as recorded."
            )
        if sigmas[-1] > 0:
            raise ValueError(
                "The run of this image stopped before the end of its schedule, so there is no "
                "finished image to start from. Sample to the end, or raise recording_mb."
            )
        return renoised_start(self._clean(noise), self.mask, sigmas[0], renoise, noise)

    def _clean(self, like: Tensor) -> Tensor:
        assert self._image is not None
        return self._image.to(like)

    def _noise(self, like: Tensor) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(self.seed)
        shape = (self.repair.candidates * len(like), *like.shape[1:])
        return torch.randn(shape, generator=generator).to(like)


@dataclass(frozen=True)
class _Later:
    """An observer of a whole run that sees only its end."""

    observer: TrajectoryVariance
    first: int

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        self.observer.observe(self.first + k, z, sigma, denoised)


def _late_variance(recording: Recording, first: int) -> Tensor:
    """The trajectory's variance (B, *S) over the evaluations from `first` on that it looks at."""
    late = late_evaluations(len(recording.sigmas))
    return trajectory_variance(recording.denoised[max(first, late.start) :])
