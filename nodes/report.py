"""Text for people about a run's uncertainty."""

from __future__ import annotations

from ..bayesdiff_core.signals import SHORTEST
from ..bayesdiff_core.uncertainty import Uncertainty

__all__ = ["describe", "scores_and_report"]


def describe(uncertainty: Uncertainty) -> str:
    """What produced it, then a line an image with the score of every signal."""
    data = uncertainty.metadata
    lines = [
        f"{data['sampler_name']}, {data['evaluations']} evaluations",
    ]
    if data.get("method"):
        lines.append(
            f"posterior by {data['method']}, {data['extra_evaluations']:g} extra evaluations"
        )
    share = data.get("notes", {}).get("negative_variances")
    if share is not None:
        lines.append(f"{share:.0%} of the recursion's variances came out negative")
    if data["evaluations"] < SHORTEST and "trajectory" in uncertainty.signals:
        lines.append(
            f"trajectory is zero: a prediction varies along a run of at least {SHORTEST} "
            "evaluations only"
        )
    if data.get("note"):
        lines.append(data["note"])
    source = uncertainty.artifact_source
    both = "contrast and trajectory together"
    lines.append(f"artifact is judged by {both if source == 'artifact' else source}")
    names = [name for name in uncertainty.names if name != "artifact"]
    for image in range(uncertainty.batch):
        scores = (f"{name} {uncertainty.signal(name).scores[image].item():.4g}" for name in names)
        lines.append(f"image {image + 1}: {', '.join(scores)}")
    return "\n".join(lines)


def scores_and_report(uncertainty: Uncertainty) -> tuple[list[float], str]:
    """One number an image, high is suspect, and the text."""
    return uncertainty.signal("artifact").scores.tolist(), describe(uncertainty)
