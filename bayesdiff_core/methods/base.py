"""The protocol behind which the methods stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ..laplace import LaplacePosterior
from ..solver_run import SolverRun

__all__ = ["Method", "Propagated"]


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

    def sample(self, run: SolverRun, posterior: LaplacePosterior) -> Propagated:
        """Run `run` to its end and say how uncertain the result is."""
