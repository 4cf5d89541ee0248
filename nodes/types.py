"""The extension's own socket types."""

from comfy_api.latest import io

__all__ = ["CATEGORY", "Laplace", "Uncertainty"]

CATEGORY = "BayesDiff"

Laplace = io.Custom("LAPLACE")
"""A `bayesdiff_core.laplace.LaplacePosterior`."""

Uncertainty = io.Custom("UNCERTAINTY")
"""A `bayesdiff_core.uncertainty.Uncertainty`."""
