"""What became of every resampled region, in words."""

from __future__ import annotations

import math

from torch import Tensor

from ..bayesdiff_core.mask import Box
from ..bayesdiff_core.resample.region_choice import Choice
from ..bayesdiff_core.resample.regions import region_boxes, region_scores
from .host.resample.plan import ResampleOptions
from .host.resample.rounds import Resampled

__all__ = ["resample_report"]


def resample_report(
    done: Resampled, mask: Tensor, size: tuple[int, int], change: Tensor, options: ResampleOptions
) -> str:
    """A line for each region: where it lies, its score before and after, what it took.

    Arguments:
        done: What came of it.
        mask: At the size of the latents, shape (B, 1, *S).
        size: Height and width of the picture in whose pixels places are given.
        change: The result minus the input, in latent units, shape (M * B, C, *S).
        options: What was asked for.

    Returns:
        The lines, below a heading and notes on the whole.
    """
    rounds = done.rounds
    labels = rounds[0].labels
    boxes = region_boxes(labels)
    scale = (size[0] / labels.shape[-2], size[1] / labels.shape[-1])
    squares = change.square().mean(1).unflatten(0, (-1, len(mask)))
    changes = region_scores(squares, mask, labels).sqrt()
    count = f"{options.candidates} candidate{'s' if options.candidates > 1 else ''}"
    rule = options.chosen_rule
    heading = rule.heading(count, rounds[0].signal, options.keep_original)
    lines = [heading, *done.notes, *_progress(rounds, options)]
    for image, found in enumerate(boxes):
        if not found:
            lines.append(f"image {image + 1}: nothing masked")
        for region, box in enumerate(found):
            name = f"image {image + 1}" + (f", region {region + 1}" if len(found) > 1 else "")
            share = box.area / labels[0].shape[-2:].numel()
            place = f"{_place(box, scale)}, {share:.1%} of the picture"
            if rule.returns_all:
                told = _all(rounds[0], image, region, changes[:, image, region])
            else:
                told = _taken(rounds, image, region, changes[0, image, region].item())
            lines.append(f"{name}: {told} ({place})")
    return "\n".join(lines)


def _progress(rounds: list[Choice], options: ResampleOptions) -> list[str]:
    """A line per round, where more than one was asked for."""
    if options.rounds == 1:
        return []
    if options.chosen_rule.one_round:
        return [f"one round: the rule {options.rule} compares nothing"]
    lines = []
    for number, choice in enumerate(rounds, start=1):
        there = int((~choice.scores[:-1].isnan().all(0)).sum())
        better = int((choice.picked >= 0).sum())
        lines.append(f"round {number}: {better} of {there} regions improved")
    if not rounds[-1].improved:
        lines.append("no region improved any more, so the rounds ended")
    return lines


def _taken(rounds: list[Choice], image: int, region: int, change: float) -> str:
    before = rounds[0].scores[-1, image, region].item()
    after, source = before, ""
    for number, choice in enumerate(rounds, start=1):
        picked = int(choice.picked[image, region])
        if picked >= 0:
            after = choice.scores[picked, image, region].item()
            source = f"candidate {picked + 1}" + (f" of round {number}" if len(rounds) > 1 else "")
    if not source:
        best = min(float(choice.scores[:-1, image, region].min()) for choice in rounds)
        return f"kept the original, {before:.4g}; the best candidate has {best:.4g}"
    start = "unknown" if math.isnan(before) else f"{before:.4g}"
    return f"{start} became {after:.4g} with {source}, changed by {change:.3g} rms"


def _all(choice: Choice, image: int, region: int, changes: Tensor) -> str:
    scores = [f"{score:.4g}" for score in choice.scores[:, image, region].tolist()]
    moved = ", ".join(f"{change:.3g}" for change in changes[: len(scores) - 1].tolist())
    told = f"candidates {', '.join(scores[:-1])}; the original {scores[-1]}"
    return f"{told}; changed by {moved} rms"


def _place(box: Box, scale: tuple[float, float]) -> str:
    """Left upper corner and size, in pixels of the picture."""
    x, width = round(box.x * scale[1]), round(box.width * scale[1])
    y, height = round(box.y * scale[0]), round(box.height * scale[0])
    return f"at {x}, {y}: {width} x {height} pixels"
