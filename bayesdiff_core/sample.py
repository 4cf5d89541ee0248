"""Sampling with uncertainty: a run that is looked on at, and all that is said of it afterwards.

`observe` lets the solver go its way and only records. `judge` then makes the evaluations that cost
extra, from what was recorded: nothing in it can touch the latent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from .laplace import LaplacePosterior
from .methods import Follower, Method, Propagated, Record, Records, Tangent
from .recording import Recorder, Recording
from .signals import Contrast, TrajectoryVariance
from .solver_run import Observer, SolverRun
from .uncertainty import SIGNALS, RunSettings, Uncertainty, contrast_signals, posterior_signal

__all__ = [
    "Observed",
    "UncertaintyOptions",
    "judge",
    "observe",
    "sample_with_uncertainty",
]

T = TypeVar("T")

Attempt = Callable[[str, Callable[[], T]], "T | None"]
"""(name of a signal, work) -> what the work gives, or None where it failed."""


@dataclass(frozen=True)
class UncertaintyOptions:
    """What to compute besides the latent.

    A `posterior` adds that signal, by `method`; `contrast` asks for that one where the caller has
    the means. `budget_mb` is the memory for the recorded trajectory.
    """

    posterior: LaplacePosterior | None = None
    method: Method = field(default_factory=Tangent)
    contrast: bool = True
    budget_mb: float = 2048.0


@dataclass(frozen=True)
class Observed:
    """A finished run: its final state (B, C, *S), and what was recorded on the way.

    `trajectory` (B, *S) is on the CPU, or the error for which there is none. `propagated` is there
    already where the method does its work during the run.
    """

    final: Tensor
    trajectory: Tensor | Exception
    recording: Recording | None
    recording_note: str
    records: dict[int, Record]
    propagated: Propagated | None


def observe(run: SolverRun, options: UncertaintyOptions) -> Observed:
    """Run a solver to its end, looking on.

    Arguments:
        run: The solver's run; observers of its own are kept.
        options: What is going to be asked of it.

    Returns:
        The final state is the solver's own to the bit, unless the method is one that changes it by
        definition.
    """
    adaptive = run.solver.adaptive
    evaluations = None if adaptive else run.trace.evaluations
    trajectory = TrajectoryVariance(evaluations)
    recorder = Recorder(evaluations, options.budget_mb)
    variance, recording = _Onlooker(trajectory), _Onlooker(recorder)
    run.observers += [variance, recording]
    propagated, records = None, Records(run, ())
    if options.posterior is None:
        final = run.sample()
    elif isinstance(options.method, Follower):
        records = Records(run, None if adaptive else options.method.wanted(run))
        final = run.sample(records.evaluate)
    else:
        propagated = options.method.sample(run, options.posterior)
        final = propagated.latent

    def undecided() -> Tensor:
        # An adaptive sampler asked for a single step returns without an evaluation.
        known = trajectory.map() if run.trace.evaluations else torch.zeros_like(final[:, 0])
        return known.cpu().float()

    return Observed(
        final,
        variance.result(undecided),
        _kept(recording.result(lambda: recorder.finish(final, run.sigmas))),
        recorder.note or recording.note,
        dict(records),
        propagated,
    )


def judge(
    observed: Observed,
    run: SolverRun,
    options: UncertaintyOptions,
    *,
    contrast_of: Callable[[Tensor], Contrast] | None = None,
    to_latent_units: Callable[[Tensor], Tensor] = lambda std: std,
    settings: RunSettings | None = None,
    attempt: Attempt = lambda _name, work: work(),
) -> Uncertainty:
    """Say how uncertain the result of a finished run is.

    Arguments:
        observed: From `observe`.
        run: The same run, with the noise it drew.
        options: What to compute.
        contrast_of: Contrast of the final state (B, C, *S), called where `options` ask for it;
            None where there is nothing to compare with.
        to_latent_units: Turns a std (B, C, *S) in the space the solver sees into one of the
            latent that the user gets.
        settings: What is known of the run; what happened in it is filled in.
        attempt: Does the work for a signal, and may answer None for a failure.

    Returns:
        The signals that could be computed, on the CPU.
    """
    trajectory = attempt("trajectory", lambda: _trajectory(observed))
    if trajectory is None:
        trajectory = torch.zeros(len(observed.final), *observed.final.shape[2:])
    signals = {"trajectory": SIGNALS["trajectory"].of(trajectory)}
    if options.contrast and contrast_of is not None:
        contrast = attempt("contrast", lambda: _finite_contrast(contrast_of(observed.final)))
        if contrast is not None:
            signals |= contrast_signals(contrast, trajectory)
    std, propagated = None, None
    if options.posterior is not None:
        propagated = attempt("posterior", lambda: _propagated(observed, run, options))
    if propagated is not None:
        spread = propagated.variance.clamp(min=0).sqrt()
        std = attempt("posterior", lambda: _finite(to_latent_units(spread).cpu().float()))
    if std is not None:
        signals["posterior"] = posterior_signal(std)
    happened = _describe(settings or RunSettings(), observed, run, options, propagated)
    return Uncertainty(signals, observed.recording, std, happened)


def sample_with_uncertainty(
    run: SolverRun,
    options: UncertaintyOptions,
    *,
    contrast_of: Callable[[Tensor], Contrast] | None = None,
    settings: RunSettings | None = None,
) -> tuple[Tensor, Uncertainty]:
    """Final state (B, C, *S) of a run and its uncertainty: `observe`, then `judge`."""
    observed = observe(run, options)
    uncertainty = judge(observed, run, options, contrast_of=contrast_of, settings=settings)
    return observed.final, uncertainty


@dataclass
class _Onlooker:
    """An observer whose failure ends its own work and nothing else."""

    observer: Observer
    error: Exception | None = None

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        if self.error is not None:
            return
        try:
            self.observer.observe(k, z, sigma, denoised)
        except Exception as error:
            self.error = error

    def result(self, work: Callable[[], T]) -> T | Exception:
        """What came of it, or the error that ended it."""
        if self.error is not None:
            return self.error
        try:
            return work()
        except Exception as error:
            self.error = error
            return error

    @property
    def note(self) -> str:
        if self.error is None:
            return ""
        return (
            f"The trajectory could not be recorded ({self.error}): MaskedResample will re-noise "
            "the image instead."
        )


def _kept(recording: Recording | Exception | None) -> Recording | None:
    return None if isinstance(recording, Exception) else recording


def _trajectory(observed: Observed) -> Tensor:
    if isinstance(observed.trajectory, Exception):
        raise observed.trajectory
    return _finite(observed.trajectory)


def _finite(values: Tensor) -> Tensor:
    """The values. Raises ValueError where some are not finite."""
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise ValueError(
            f"{bad} of its values are NaN or infinite; look at the image, and sample again with a "
            "lower guidance scale, more steps or another precision"
        )
    return values


def _finite_contrast(contrast: Contrast) -> Contrast:
    _finite(contrast.map)
    _finite(contrast.error)
    return contrast


def _propagated(observed: Observed, run: SolverRun, options: UncertaintyOptions) -> Propagated:
    assert options.posterior is not None
    if observed.propagated is not None:
        return observed.propagated
    method = options.method
    assert isinstance(method, Follower)
    found = method.propagate(run, options.posterior, observed.records, observed.final)
    again = len(method.wanted(run)) if run.solver.adaptive else 0
    return replace(found, cost=found.cost + again)


def _describe(
    settings: RunSettings,
    observed: Observed,
    run: SolverRun,
    options: UncertaintyOptions,
    propagated: Propagated | None = None,
) -> RunSettings:
    """The settings, with what happened in the run filled in."""
    found = replace(
        settings,
        sampler_name=settings.sampler_name or run.name,
        sigmas=tuple(run.sigmas.tolist()),
        evaluations=run.trace.evaluations,
        recording_note=observed.recording_note,
    )
    posterior = options.posterior
    if propagated is None or posterior is None:
        return found
    return replace(
        found,
        method=options.method.name,
        extra_evaluations=propagated.cost,
        notes={k: v for k, v in propagated.notes.items() if k != "members"},
        fingerprint=posterior.fingerprint,
    )
