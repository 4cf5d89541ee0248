"""The protocol behind which the methods stand, and what most of them share: they follow a run.

A method that follows a run lets the solver go its way, has a few evaluations recorded, and does
its own work after the run. A failure of it then costs the uncertainty and never the latent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ..laplace import LaplacePosterior
from ..solver_run import Solver, SolverRun

__all__ = ["Follower", "Method", "Propagated", "Record", "Records"]


@dataclass(frozen=True)
class Propagated:
    """A sample and the variance that the posterior gives it, in the space the solver sees.

    `latent` and `variance` are (B, C, *S); `cost` is the number of extra guided evaluations of the
    batch; `notes` holds what the method wants to be reported.
    """

    latent: Tensor
    variance: Tensor
    cost: float
    notes: dict[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """Samples and propagates."""

    @property
    def name(self) -> str: ...

    def check(self, solver: Solver) -> None:
        """Raises ValueError, in words, where the solver cannot be followed."""

    def sample(self, run: SolverRun, posterior: LaplacePosterior) -> Propagated:
        """Run `run` to its end and say how uncertain the result is."""


@dataclass(frozen=True)
class Record:
    """One evaluation of a run: its state z (B, C, *S), its noise level sigma (), and what the
    denoiser needs to recall it."""

    z: Tensor
    sigma: Tensor
    content: Any


class Records(dict[int, Record]):
    """Records of the `wanted` evaluations of a run, by evaluation, made while it goes on.

    None stands for all of a run whose length nobody knows beforehand: such records only say how
    to make the evaluation again.
    """

    def __init__(self, run: SolverRun, wanted: Collection[int] | None) -> None:
        super().__init__()
        self.run = run
        self.wanted = wanted

    def evaluate(self, k: int, z: Tensor, sigma: Tensor) -> Tensor:
        """The plain evaluation, recorded where it is wanted."""
        if self.wanted is not None and k not in self.wanted:
            return self.run.denoise(k, z, sigma)
        whole = self.wanted is not None
        denoised, content = self.run.denoiser.record(z, sigma, whole)
        self[k] = Record(z.to(z.device if whole else "cpu", copy=True), sigma.clone(), content)
        return denoised


class Follower:
    """Base of the methods that follow a run, of any solver."""

    def check(self, solver: Solver) -> None:
        """Every solver that has a trace can be followed, one that is adaptive has it later."""
        if not solver.adaptive:
            solver.trace  # noqa: B018

    def wanted(self, run: SolverRun) -> tuple[int, ...]:
        """The evaluations of which the method needs records."""
        return ()

    def propagate(
        self,
        run: SolverRun,
        posterior: LaplacePosterior,
        records: dict[int, Record],
        latent: Tensor,
    ) -> Propagated:
        """How uncertain the result of a finished run is.

        Arguments:
            run: With the noise that it drew; its denoiser recalls the records.
            posterior: Of the denoiser's last layer.
            records: Of the wanted evaluations.
            latent: The run's final state, shape (B, C, *S).
        """
        raise NotImplementedError

    def sample(self, run: SolverRun, posterior: LaplacePosterior) -> Propagated:
        """Run `run` to its end, undisturbed, and say how uncertain the result is."""
        records = Records(run, None if run.solver.adaptive else self.wanted(run))
        latent = run.sample(records.evaluate)
        return self.propagate(run, posterior, records, latent)
