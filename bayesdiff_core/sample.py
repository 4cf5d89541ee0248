"""Sampling with uncertainty: one run, observed, and everything that can be said of its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .laplace import LaplacePosterior
from .methods import Method, Propagated, Tangent
from .recording import Recorder
from .signals import Contrast, TrajectoryVariance
from .solver_run import SolverRun
from .uncertainty import SIGNALS, RunSettings, Uncertainty, contrast_signals, posterior_signal

__all__ = ["UncertaintyOptions", "sample_with_uncertainty"]


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


def sample_with_uncertainty(
    run: SolverRun,
    options: UncertaintyOptions,
    *,
    contrast_of: Callable[[Tensor], Contrast] | None = None,
    to_latent_units: Callable[[Tensor], Tensor] = lambda std: std,
    settings: RunSettings | None = None,
) -> tuple[Tensor, Uncertainty]:
    """Run a solver to its end and say how uncertain the result is.

    Arguments:
        run: The solver's run; observers of its own are kept.
        options: What to compute.
        contrast_of: Contrast of the final state (B, C, *S), called where `options` ask for it;
            None where there is nothing to compare with.
        to_latent_units: Turns a std (B, C, *S) in the space the solver sees into one of the
            latent that the user gets.
        settings: What is known of the run; what happened in it is filled in.

    Returns:
        The final state (B, C, *S), which is the solver's own to the bit unless the method changes
        it by definition, and its uncertainty on the CPU.
    """
    evaluations = run.trace.evaluations
    trajectory = TrajectoryVariance(evaluations)
    recorder = Recorder(evaluations, options.budget_mb)
    run.observers += [trajectory, recorder]
    propagated = _propagate(run, options)
    final = propagated.latent
    # An adaptive sampler asked for a single step returns without an evaluation.
    undecided = trajectory.map() if evaluations else torch.zeros_like(final[:, 0])
    signals = {"trajectory": SIGNALS["trajectory"].of(undecided)}
    if options.contrast and contrast_of is not None:
        signals |= contrast_signals(contrast_of(final), signals["trajectory"].map)
    std = None
    if options.posterior is not None:
        std = to_latent_units(propagated.variance.clamp(min=0).sqrt()).cpu().float()
        signals["posterior"] = posterior_signal(std)
    recording = recorder.finish(final, run.sigmas)
    happened = _describe(settings or RunSettings(), run, options, propagated, recorder.note)
    return final, Uncertainty(signals, recording, std, happened)


def _propagate(run: SolverRun, options: UncertaintyOptions) -> Propagated:
    if options.posterior is None:
        return Propagated(run.sample(), torch.zeros_like(run.x), 0.0)
    return options.method.sample(run, options.posterior)


def _describe(
    settings: RunSettings,
    run: SolverRun,
    options: UncertaintyOptions,
    propagated: Propagated,
    recording_note: str,
) -> RunSettings:
    posterior = options.posterior
    return replace(
        settings,
        sampler_name=settings.sampler_name or run.name,
        sigmas=tuple(run.sigmas.tolist()),
        evaluations=run.trace.evaluations,
        method=options.method.name if posterior else None,
        extra_evaluations=propagated.cost,
        notes={k: v for k, v in propagated.notes.items() if k != "members"},
        fingerprint=posterior.fingerprint if posterior else None,
        recording_note=recording_note,
    )
