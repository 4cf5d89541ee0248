"""A sampler of ComfyUI on one batch, as the core's `Solver`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...bayesdiff_core.solver_run import Draw, EvaluateStep, SolverRun
from ...bayesdiff_core.solver_trace import (
    DrawNoise,
    Evaluate,
    Trace,
    UntraceableSolverError,
    trace_solver,
)
from .conditioning import align
from .denoiser import HostDenoiser
from .memory import in_parts, is_out_of_memory
from .sampler_hooks import Decide, Decision, intercepted, own_decision

__all__ = ["CallSampler", "HostSolver", "SamplerCall", "Solvers"]

POST_CFG = "sampler_post_cfg_function"


@dataclass(frozen=True)
class SamplerCall:
    """The arguments with which the host calls a sampler function.

    Attributes:
        function: The sampler function.
        name: Of the sampler, for people.
        model_k: What it calls as its model.
        x: Initial state, shape (n * B, C, *S), tile-major.
        sigmas: Noise levels, shape (steps + 1,).
        extra_args: Keyword arguments of the model's calls.
        callback: Told of every step.
        disable: Whether the sampler's own progress bar is off.
        options: The sampler's further keyword arguments.
        copies: The number n.
    """

    function: Callable[..., Tensor]
    name: str
    model_k: Any
    x: Tensor
    sigmas: Tensor
    extra_args: dict[str, Any]
    callback: Callable[[dict[str, Any]], None] | None
    disable: bool | None
    options: dict[str, Any]
    copies: int = 1

    @property
    def shape(self) -> torch.Size:
        """(B, C, *S) of the batch that the conditionings belong to; x holds `copies` of it."""
        return torch.Size([len(self.x) // self.copies, *self.x.shape[1:]])

    @property
    def model_options(self) -> dict[str, Any]:
        """The model options of the run, private to it."""
        return self.extra_args["model_options"]

    @property
    def free(self) -> Tensor | None:
        """Where the latent is free to move, (B, 1, *S) in [0, 1]; None is everywhere."""
        mask = self.extra_args.get("denoise_mask")
        if mask is not None and "denoise_mask_function" in self.model_options:
            return (mask > 0).to(mask)
        return mask

    def serve_copies(self) -> None:
        """Let the model predict copies of this batch, as many at a time as fit.

        Conditionings are brought in step with the batch.
        """
        guider = self.model_k.inner_model
        guider.conds = align(guider.conds, len(self.x))
        in_parts(self.model_options, len(self.x))

    def own_args(self) -> dict[str, Any]:
        """Arguments that the sampler may change without an effect on anyone else.

        Returns:
            Shallow copies of `extra_args` and of the model options among them.
        """
        return {**self.extra_args, "model_options": self.model_options.copy()}


class CallSampler(comfy.samplers.KSAMPLER):
    """A sampler as the host sets it up, whose `work` gets the call in place of its function.

    Arguments:
        sampler: The KSAMPLER whose function and options the call holds.
        name: Of the sampler, for people.
        work: From the call to the final state (N, C, *S) in the space the sampler sees.
    """

    def __init__(self, sampler: Any, name: str, work: Callable[[SamplerCall], Tensor]) -> None:
        super().__init__(self._call, sampler.extra_options, sampler.inpaint_options)
        self._function = sampler.sampler_function
        self._name = name
        self._work = work

    def _call(
        self,
        model_k: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        disable: bool,
        **options: Any,
    ) -> Tensor:
        return self._work(
            SamplerCall(
                function=self._function,
                name=self._name,
                model_k=model_k,
                x=x,
                sigmas=sigmas,
                extra_args=extra_args,
                callback=callback,
                disable=disable,
                options=options,
            )
        )


class HostSolver:
    """The sampler as the host called it; it sees what it would see without us.

    `denoiser` is the model of the call. A sampler that is `adaptive` chooses its steps by the
    image and has a trace only once it has sampled: they are learnt on the way.

    Arguments:
        call: What the host called the sampler with.

    Raises:
        UntraceableSolverError: If the sampler does not run on a single number.
    """

    def __init__(self, call: SamplerCall) -> None:
        self.call = call
        # Some samplers write into the schedule they are given.
        self.sigmas = call.sigmas.clone()
        self.name = call.name
        traits = _traits_of(call, self.sigmas)
        self.reads = 2 if traits.reads_uncond else 1
        self.adaptive = traits.adaptive
        self.denoiser = HostDenoiser(
            call.model_k, call.own_args(), call.shape, traits.reads_uncond
        )
        self._decisions: list[Decision] = []

    def on(self, call: SamplerCall) -> HostSolver:
        """The same solver, with its trace, in another call of the host on the same schedule.

        Arguments:
            call: The other call.

        Returns:
            A solver with a denoiser of its own.
        """
        other = copy(self)
        other.call = call
        reads_uncond = self.denoiser.reads_uncond
        other.denoiser = HostDenoiser(call.model_k, call.own_args(), call.shape, reads_uncond)
        return other

    def run(self, x: Tensor | None = None) -> SolverRun:
        """The solver's run on its model.

        Arguments:
            x: Initial state, shape (n * B, C, *S); None is the one that the host called it with.

        Returns:
            Not begun yet.

        Raises:
            ValueError: If the schedule is not finite.
        """
        return SolverRun(self, self.denoiser, self.call.x if x is None else x, mask=self.call.free)

    @cached_property
    def trace(self) -> Trace:
        """Its linear coefficients on this schedule.

        Raises:
            UntraceableSolverError: If it has none, see `bayesdiff_core.solver_trace`.
        """

        def run(x: Tensor, evaluate: Evaluate, draw: DrawNoise) -> Tensor:
            model = _TracedModel(self.call, evaluate)
            sigmas = self.sigmas.cpu()
            return _run_aside(self.call, model, x, sigmas, lambda _own: draw(), self._decide())

        return trace_solver(run, self.reads, name=self.name)

    def sample(self, x: Tensor, evaluate: EvaluateStep, draw: Draw) -> Tensor:
        """The run that the host asked for, with its progress; notes an adaptive sampler's steps.

        Arguments:
            x: Initial state, shape (n * B, C, *S).
            evaluate: Answers in place of the model.
            draw: Gives the sampler its noise.

        Returns:
            Final state, shape (n * B, C, *S).
        """
        call = self.call
        self._decisions.clear()

        def noted(own: Callable[[], Decision]) -> Decision:
            self._decisions.append(own())
            return self._decisions[-1]

        with intercepted(draw, call.options, noted) as options:
            return call.function(
                self._running(evaluate),
                x,
                call.sigmas,
                extra_args=call.extra_args,
                callback=call.callback,
                disable=call.disable,
                **options,
            )

    def replay(self, x: Tensor, evaluate: EvaluateStep, draw: Draw) -> Tensor:
        """The same steps once more, with a progress bar and no effect on anything else.

        Arguments:
            x: Initial state, shape (n * B, C, *S), for any number n of copies.
            evaluate: Answers in place of the model.
            draw: Gives the sampler its noise.

        Returns:
            Final state, shape (n * B, C, *S).
        """
        bar = comfy.utils.ProgressBar(self.trace.evaluations)

        def counted(k: int, z: Tensor, sigma: Tensor) -> Tensor:
            denoised = evaluate(k, z, sigma)
            bar.update(1)
            return denoised

        model = self._running(counted)
        return _run_aside(self.call, model, x, self.sigmas, draw, self._decide())

    def _running(self, evaluate: EvaluateStep) -> _RunningModel:
        return _RunningModel(self.call.model_k, self.denoiser, evaluate)

    def _decide(self) -> Decide:
        """The decisions of the last `sample` once more; the sampler's own where it made none."""
        if not self._decisions:
            return own_decision
        decisions = iter(self._decisions)
        return lambda _own: next(decisions)


class Solvers:
    """The solvers of one job, by schedule: a sampler is looked at and traced once on each."""

    def __init__(self) -> None:
        self._known: dict[tuple[float, ...], HostSolver] = {}

    def of(self, call: SamplerCall) -> HostSolver:
        """The solver of a call.

        Arguments:
            call: Its sampler and its guidance are those of the job.

        Returns:
            With a denoiser of its own, and what is known of the sampler on this schedule.

        Raises:
            UntraceableSolverError: If the sampler does not run on a single number.
        """
        schedule = tuple(call.sigmas.tolist())
        if schedule in self._known:
            return self._known[schedule].on(call)
        return self._known.setdefault(schedule, HostSolver(call))


def _run_aside(
    call: SamplerCall,
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    draw: Draw,
    decide: Decide = own_decision,
) -> Tensor:
    """The sampler on a model of ours, with nothing shared with the run that the host asked for."""
    with intercepted(draw, call.options, decide) as options:
        return call.function(
            model,
            x,
            sigmas.clone(),
            extra_args=call.own_args(),
            callback=None,
            disable=True,
            **options,
        )


class _Model:
    """Stands in for the model that a sampler calls; whatever else it asks for is the model's."""

    def __init__(self, model_k: Any) -> None:
        self._model_k = model_k

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model_k, name)


class _RunningModel(_Model):
    """Evaluates step by step, each as the sampler's own call."""

    def __init__(self, model_k: Any, denoiser: HostDenoiser, evaluate: EvaluateStep) -> None:
        super().__init__(model_k)
        self._denoiser = denoiser
        self._evaluate = evaluate
        self._counter: Iterator[int] = count()

    def __call__(self, x: Tensor, sigma: Tensor, **arguments: Any) -> Tensor:
        with self._denoiser.running(arguments, sigma):
            return self._evaluate(next(self._counter), x, sigma.flatten()[0])


class _TracedModel(_Model):
    """Answers with what `evaluate` says, the unconditional prediction by the sampler's own way."""

    def __init__(self, call: SamplerCall, evaluate: Evaluate) -> None:
        super().__init__(call.model_k)
        self._known = len(call.model_options.get(POST_CFG, ()))
        self._evaluate = evaluate
        self.reads_uncond = False

    def __call__(
        self, x: Tensor, sigma: Tensor, model_options: dict[str, Any], **_arguments: Any
    ) -> Tensor:
        predictions: Sequence[Tensor] = self._evaluate(x, sigma)
        denoised = predictions[0]
        for function in model_options.get(POST_CFG, ())[self._known :]:
            self.reads_uncond = True
            denoised = function(
                {
                    "denoised": denoised,
                    "cond_denoised": denoised,
                    "uncond_denoised": predictions[-1],
                    "input": x,
                    "sigma": sigma,
                    "model_options": model_options,
                    "cond_scale": 1.0,
                    "model": self._model_k.inner_model.inner_model,
                }
            )
        return denoised


@dataclass
class _SamplerTraits:
    """Reads the unconditional prediction; chooses its steps from the data."""

    reads_uncond: bool = False
    adaptive: bool = False


def _traits_of(call: SamplerCall, sigmas: Tensor) -> _SamplerTraits:
    """Found by running the sampler on a single number."""
    traits = _SamplerTraits()

    def decide(own: Callable[[], Decision]) -> Decision:
        traits.adaptive = True
        return own()

    model = _TracedModel(call, lambda z, _sigma: (torch.zeros_like(z),))
    x = torch.zeros(1, 1, 1, 1)
    try:
        _run_aside(call, model, x, sigmas.cpu(), lambda _own: torch.zeros_like(x), decide)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Such as samplers for video that go by frames and keep a cache of the model's.
        raise UntraceableSolverError(
            f"The sampler '{call.name}' does not run on a single number ({error}), so uncertainty "
            "cannot be carried through it. Use another, for instance euler or dpmpp_2m."
        ) from error
    traits.reads_uncond = model.reads_uncond
    return traits
