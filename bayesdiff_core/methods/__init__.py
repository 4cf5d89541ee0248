"""How the posterior on the weights becomes uncertainty of the latent: one small class a method."""

from .base import Follower, Method, Propagated, Record, Records
from .bayesdiff import BayesDiff, UnsupportedSolverError
from .ensemble import Ensemble
from .tangent import PRESETS, Tangent

__all__ = [
    "PRESETS",
    "BayesDiff",
    "Ensemble",
    "Follower",
    "Method",
    "Propagated",
    "Record",
    "Records",
    "Tangent",
    "UnsupportedSolverError",
]
