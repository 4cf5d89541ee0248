"""Text for people about a run's uncertainty."""

from __future__ import annotations

from contextlib import suppress

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..bayesdiff_core.signals import SHORTEST
from ..bayesdiff_core.uncertainty import Uncertainty

__all__ = ["describe", "say_on_node", "scores_and_report"]


def describe(uncertainty: Uncertainty) -> str:
    """An uncertainty as text.

    Arguments:
        uncertainty: Of a batch.

    Returns:
        What produced it, then a line for each image with the score of every signal.

    Raises:
        ValueError: If it holds no signal.
    """
    run = uncertainty.settings
    lines = [f"{run.sampler_name}, {run.evaluations} evaluations"]
    if run.method:
        lines.append(f"posterior by {run.method}, {run.extra_evaluations:g} extra evaluations")
    share = run.notes.get("negative_variances")
    if share is not None:
        lines.append(f"{share:.0%} of the recursion's variances came out negative")
    if run.evaluations < SHORTEST and "trajectory" in uncertainty.signals:
        lines.append(
            f"trajectory is zero: a prediction varies along a run of at least {SHORTEST} "
            "evaluations only"
        )
    if run.recording_note:
        lines.append(run.recording_note)
    lines += run.failures
    source = uncertainty.artifact_source
    both = "contrast and trajectory together"
    lines.append(f"artifact is judged by {both if source == 'artifact' else source}")
    names = [name for name in uncertainty.names if name != "artifact"]
    for image in range(uncertainty.batch):
        scores = (f"{name} {uncertainty.signal(name).scores[image].item():.4g}" for name in names)
        lines.append(f"image {image + 1}: {', '.join(scores)}")
    return "\n".join(lines)


def say_on_node(text: str) -> None:
    """Write a text on the node that is running; a page that cannot be reached costs nothing.

    Arguments:
        text: Nothing is written where it is empty.
    """
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if text and context is not None and server is not None:
        with suppress(Exception):
            server.send_progress_text(text, context.node_id)


def scores_and_report(uncertainty: Uncertainty) -> tuple[list[float], str]:
    """The outputs `scores` and `report` of an uncertain sampler; what failed is said on the node.

    Arguments:
        uncertainty: Of B images.

    Returns:
        B scores by `artifact`, high is suspect, and the text; NaN, and why, where that fails.
    """
    say_on_node("\n".join(uncertainty.settings.failures))
    # The image is finished: what is said of it must not cost it.
    try:
        return uncertainty.signal("artifact").scores.tolist(), describe(uncertainty)
    except Exception as error:
        return [float("nan")] * uncertainty.batch, f"The scores could not be computed: {error}"
