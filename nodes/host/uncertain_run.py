"""Sampling by the user's own sampler, and its uncertainty as a passenger.

The image is made by the stock sampler on the stock model, with a tap that only records. What costs
extra evaluations happens after it, as a run of its own in which caches of the model start anew and
no random number is taken from anybody. Only what is wrong beforehand is refused; what fails
afterwards costs a signal, and a sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import comfy.model_management
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...bayesdiff_core.methods import Follower
from ...bayesdiff_core.sample import Observed, UncertaintyOptions, judge, observe
from ...bayesdiff_core.signals import CONTRAST_LEVELS, Contrast
from ...bayesdiff_core.uncertainty import SIGNALS, RunSettings, Uncertainty
from .conditioning import align
from .contrast import contrast_map, has_two_sides
from .feature_tap import Tap, open_last_layer
from .last_layer import ModelLayer
from .memory import is_out_of_memory
from .solver_run import CallSampler, HostSolver, SamplerCall, Solvers

__all__ = ["SAMPLERS", "UncertainRun", "preserved_generators", "sampler_from"]

SAMPLERS: list[str] = comfy.samplers.KSampler.SAMPLERS

T = TypeVar("T")


class UncertainRun:
    """One run of the user's sampler; `uncertainty` is there once it is over.

    Arguments:
        sampler: SAMPLER.
        options: What to compute besides the latent.
        name: Of the sampler; None takes its function's.

    Raises:
        ValueError: If the sampler does not work step by step on a model.
    """

    uncertainty: Uncertainty

    def __init__(self, sampler: Any, options: UncertaintyOptions, name: str | None = None) -> None:
        if not isinstance(sampler, comfy.samplers.KSAMPLER):
            raise ValueError(
                f"The sampler {type(sampler).__name__} does not work step by step on a model, so "
                "uncertainty cannot be carried through it. Use KSamplerSelect, for instance with "
                "euler or dpmpp_2m."
            )
        self.sampler = sampler
        self.options = options
        self.name = name or function_name(sampler.sampler_function)
        self._solvers = Solvers()
        self._observed: Observed | None = None
        self._layer: ModelLayer | None = None
        self._failures = Failures()

    @property
    def follows(self) -> bool:
        """Whether nothing of ours takes part in the run itself."""
        return self.options.posterior is None or isinstance(self.options.method, Follower)

    def sample(
        self, guider: Any, noise: Tensor, samples: Tensor, sigmas: Tensor, **arguments: Any
    ) -> Tensor:
        """Sample by the guider, and say how uncertain the result is.

        Arguments:
            guider: Any GUIDER.
            noise, samples: As `guider.sample` takes them, shape (B, C, *S).
            sigmas: Noise levels, shape (steps + 1,).
            arguments: The further ones of `guider.sample`.

        Returns:
            The guider's own latents, shape (B, C, *S), to the bit unless the method takes part in
            the run and changes them by definition.

        Raises:
            ValueError: Before the image is sampled, where the uncertainty asked for cannot be had.
        """

        def run(work: Callable[[SamplerCall], Tensor], **changes: Any) -> Tensor:
            stage = CallSampler(self.sampler, self.name, work)
            return guider.sample(noise, samples, stage, sigmas.clone(), **{**arguments, **changes})

        aside = {"callback": None, "disable_pbar": True}
        if self.options.posterior is not None and len(sigmas) > 1:
            with preserved_generators():
                run(self._prepare, **aside)
        result = run(self._main)
        first = self._failures.attempt("trajectory", lambda: self._first_words(result, sigmas))
        self.uncertainty = first or self._nothing(result, sigmas)
        if self._observed is not None and self._has_more_to_say(guider):
            with preserved_generators():
                self._failures.attempt("the rest", lambda: run(self._afterwards, **aside))
        sentences = tuple(dict.fromkeys(self._failures.sentences))
        self.uncertainty.settings = replace(self.uncertainty.settings, failures=sentences)
        return result

    def _prepare(self, call: SamplerCall) -> Tensor:
        """What may be refused, or needs the model, before the run."""
        solver = self._solvers.of(call)
        self._open(call)
        if self.options.posterior is not None:
            self.options.method.check(solver)
        return call.x

    def _main(self, call: SamplerCall) -> Tensor:
        """The run that makes the image."""
        solver = self._solvers.of(call)
        if not self.follows:
            call.serve_copies()
        solver.denoiser.tap = self._tap(call)
        self._run = solver.run()
        self._observed = self._observe(solver)
        # Some samplers write into their schedule: what the host leaves by is what they left.
        self._last_sigma = call.sigmas[-1].clone()
        self._format = type(call.model_k.inner_model.inner_model.latent_format).__name__
        return self._observed.final

    def _observe(self, solver: HostSolver) -> Observed:
        """The run itself; where the method takes part and fails, the image without it."""
        if self.follows:
            return observe(self._run, self.options)
        observed = self._failures.attempt(
            "posterior", lambda: observe(self._run, self.options), passes_on_cancel=True
        )
        if observed is None:
            self.options = replace(self.options, posterior=None)
            self._run = solver.run()
            observed = observe(self._run, self.options)
        return observed

    @property
    def _settings(self) -> RunSettings:
        return RunSettings(
            sampler_name=self.name,
            sampler_options=dict(self.sampler.extra_options),
            inpaint_options=dict(self.sampler.inpaint_options),
        )

    def _nothing(self, result: Tensor, sigmas: Tensor) -> Uncertainty:
        """What is left where nothing is known: a trajectory of zero."""
        nothing = SIGNALS["trajectory"].of(torch.zeros_like(result[:, 0]))
        settings = replace(self._settings, sigmas=tuple(sigmas.tolist()))
        return Uncertainty({"trajectory": nothing}, settings=settings)

    def _first_words(self, result: Tensor, sigmas: Tensor) -> Uncertainty:
        """What is known as soon as the image is: where it stayed undecided."""
        settings = self._settings
        if self._observed is None:
            # Without a step the host returns the latent as it came.
            return self._nothing(result, sigmas)
        settings = replace(settings, latent_format=self._format)
        plain = UncertaintyOptions(contrast=False, budget_mb=self.options.budget_mb)
        return judge(
            self._observed, self._run, plain, settings=settings, attempt=self._failures.attempt
        )

    def _has_more_to_say(self, guider: Any) -> bool:
        if self.options.posterior is not None:
            return True
        return self.options.contrast and has_two_sides(guider.original_conds)

    def _afterwards(self, call: SamplerCall) -> Tensor:
        """All that costs extra evaluations, from what was recorded."""
        observed, attempt = self._observed, self._failures.attempt
        guider = call.model_k.inner_model
        call.serve_copies()
        solver = self._solvers.of(call)
        model = guider.inner_model
        run = solver.run()
        run.draws = self._run.draws
        if self.options.posterior is not None and self.follows:
            solver.denoiser.tap = self._tap(call)
        recalled = len(self.options.method.wanted(run)) if observed.records else 0
        bar = comfy.utils.ProgressBar(len(CONTRAST_LEVELS) + recalled)
        solver.denoiser.progress = bar.update

        def contrast_of(final: Tensor) -> Contrast:
            clean = model.model_sampling.inverse_noise_scaling(self._last_sigma, final)
            seed = call.extra_args.get("seed") or 0
            return contrast_map(
                model, guider.conds, clean, call.model_options, seed, progress=bar.update
            )

        finished = has_two_sides(guider.conds) and solver.sigmas[-1] == 0
        self.uncertainty = judge(
            observed,
            run,
            self.options,
            contrast_of=contrast_of if finished else None,
            to_latent_units=lambda std: _latent_units(model, self._last_sigma, std),
            settings=self.uncertainty.settings,
            attempt=attempt,
        )
        return call.x

    def _open(self, call: SamplerCall) -> None:
        """Find the last layer and check that it can be followed, where a posterior asks for it.

        Needs some calls of the model, so it is done before the image's own run.
        """
        if self.options.posterior is None:
            return
        guider = call.model_k.inner_model
        conds = align(guider.conds, len(call.x))
        if not any(conds.values()):
            # The host samples without any prompt, too; there is no call to find a layer in.
            self._failures.add("posterior", "it needs at least one conditioning")
            self.options = replace(self.options, posterior=None)
            return
        try:
            self._layer = open_last_layer(
                guider.inner_model, conds, call.x, call.sigmas[0], call.model_options,
                self.options.posterior,
            ).layer  # fmt: skip
        except (ValueError, comfy.model_management.InterruptProcessingException):
            raise
        except Exception as error:
            self._failures.add("posterior", error)
            self.options = replace(self.options, posterior=None)

    def _tap(self, call: SamplerCall) -> Tap | None:
        """A tap on the last layer for one run, where a posterior asks for it."""
        if self.options.posterior is None or self._layer is None:
            return None
        tap = Tap(self._layer)
        tap.install(call.model_options)
        return tap


class Failures:
    """Work for signals that may fail, and the sentences about what did."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._cancelled = False

    def add(self, name: str, reason: Exception | str) -> None:
        """A sentence about what could not be computed, and why."""
        if isinstance(reason, Exception):
            known = "the memory does not hold it, even in smaller calls"
            found = str(reason) or type(reason).__name__
            reason = known if is_out_of_memory(reason) else found
        self.sentences.append(f"{name} could not be computed: {reason}")

    def attempt(
        self, name: str, work: Callable[[], T], passes_on_cancel: bool = False
    ) -> T | None:
        """What the work gives; None, and a sentence, where it fails or was cancelled."""
        if self._cancelled:
            self.sentences.append(f"{name} was not computed: the run was cancelled")
            return None
        try:
            return work()
        except comfy.model_management.InterruptProcessingException:
            if passes_on_cancel:
                raise
            self._cancelled = True
            self.sentences.append(
                f"{name} was not computed: the run was cancelled after the image was finished"
            )
        except Exception as error:
            self.add(name, error)
        # Out of the handler, whose traceback holds the tensors of what failed.
        comfy.model_management.soft_empty_cache()
        return None


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Within the context, torch's generators may be drawn from; at the end they are as before.

    Yields:
        None.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices):
        yield


def _latent_units(model: Any, last_sigma: Tensor, std: Tensor) -> Tensor:
    """A std (B, C, *S) in the space the sampler sees, as std of the latent that the node returns.

    Both ways out are affine and at most rearrange elements, so what they do to a std is what they
    do to a difference.
    """
    zero = torch.zeros_like(std)
    leave = model.model_sampling.inverse_noise_scaling
    std = leave(last_sigma, std) - leave(last_sigma, zero)
    return (model.process_latent_out(std) - model.process_latent_out(zero)).abs()


def function_name(function: Any) -> str:
    """The host's name of a sampler function, or its own."""
    name = getattr(function, "__name__", type(function).__name__)
    short = name.removeprefix("sample_").removesuffix("_function").replace("unipc", "uni_pc")
    return short if short in SAMPLERS else name


def sampler_from(settings: RunSettings) -> Any:
    """The sampler of a recorded run, with its options.

    Arguments:
        settings: Of the run.

    Returns:
        SAMPLER.

    Raises:
        ValueError: If it is none that the host can make by name.
    """
    name = settings.sampler_name
    if name not in SAMPLERS:
        raise ValueError(
            f"The image was sampled by '{name}', which this node cannot make again. Choose one of "
            "the samplers in the list."
        )
    sampler = comfy.samplers.sampler_object(name)
    return comfy.samplers.KSAMPLER(
        sampler.sampler_function,
        settings.sampler_options or sampler.extra_options,
        settings.inpaint_options or sampler.inpaint_options,
    )
