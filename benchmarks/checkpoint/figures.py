"""Figures of the signals on measured images, detection, pointing and filtering, as tables."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesdiff_core.signals import CONTRAST_LEVELS

from ..detection.filtering import DROPPED, RANDOM_DROPS
from ..detection.table import over_scenes
from ..experiment import markdown_table
from ..metrics import Interval, auroc, bootstrap
from .runs import BASELINES, Image
from .truth import Verdict, inside

__all__ = ["Figures", "figures_of", "markdown", "plain"]


@dataclass(frozen=True)
class Figures:
    """Figures by signal, of images of which some are malformed.

    `signals` holds for each signal and baseline `auroc` (pooled by the mean), `auroc_top10`,
    `kept_malformed` (share malformed of what is left when the worst 17% by `top10` are dropped)
    and, where boxes are known, `pointing`: the share of the malformed images whose map peaks in a
    box (Zhang et al. 2016). `chance` is what a random point would reach there. `at_random` is the
    mean of `kept_malformed` over random drops, and `deviation` its standard deviation; `best` is
    what the truth itself would leave.
    """

    images: int
    malformed: int
    boxed: int
    chance: float
    kept: int
    at_random: float
    deviation: float
    best: float
    signals: dict[str, dict[str, Interval]]


def figures_of(images: Sequence[Image], truth: dict[str, Verdict]) -> Figures:
    """Of the images that have a verdict, at least one."""
    judged = [image for image in images if image.file in truth]
    verdicts = [truth[image.file] for image in judged]
    bad = torch.tensor([verdict.malformed for verdict in verdicts])[:, None]
    pointed = [i for i, verdict in enumerate(verdicts) if verdict.malformed and verdict.boxes]
    areas = [_area(verdicts[i]) for i in pointed]
    count = len(judged) - round(DROPPED * len(judged))
    drops = torch.tensor([_random_drop(bad, count, seed) for seed in range(RANDOM_DROPS)])

    def kept(scores: Tensor, malformed: Tensor) -> float:
        """Share malformed of what is left without the highest scores."""
        order = scores.flatten().argsort(stable=True)
        return malformed.flatten()[order[:count]].float().mean().item()

    def row(name: str) -> dict[str, Interval]:
        values = {
            pooling: torch.tensor([image.signals[name][pooling] for image in judged])[:, None]
            for pooling in ("mean", "top10")
        }
        found = {
            "auroc": over_scenes(auroc, values["mean"], bad),
            "auroc_top10": over_scenes(auroc, values["top10"], bad),
            "kept_malformed": over_scenes(kept, values["top10"], bad),
        }
        if pointed:
            hits = [inside(judged[i].signals[name]["peak"], verdicts[i].boxes) for i in pointed]
            found["pointing"] = bootstrap(torch.tensor(hits).float())
        return found

    return Figures(
        len(judged),
        int(bad.sum()),
        len(pointed),
        sum(areas) / len(areas) if areas else math.nan,
        count,
        drops.mean().item(),
        drops.std().item(),
        kept(bad.float(), bad),
        {name: row(name) for name in _common_signals(judged)},
    )


def _common_signals(images: Sequence[Image]) -> list[str]:
    """The signals that every image has, in the order of the first; the baselines are last."""
    return [name for name in images[0].signals if all(name in image.signals for image in images)]


def _area(verdict: Verdict, side: int = 100) -> float:
    """Share of the picture in the boxes, which may overlap, on a grid."""
    centres = [(i + 0.5) / side for i in range(side)]
    return sum(inside((x, y), verdict.boxes) for x in centres for y in centres) / side**2


def _random_drop(bad: Tensor, count: int, seed: int) -> float:
    order = torch.randperm(len(bad), generator=torch.Generator().manual_seed(seed))
    return bad[order[:count]].float().mean().item()


def markdown(title: str, truth: str, sampling: dict[str, Any], found: Figures) -> str:
    """The page with both tables."""
    return "\n\n".join(
        [
            f"# {title}",
            f"{found.images} images, {found.malformed} malformed, truth by {truth}. Brackets are "
            "95% bootstrap intervals over images.",
            _settings(sampling, found.signals),
            *_warnings(found),
            "## Detection",
            _detection(found),
            "## Filtering",
            f"The worst {DROPPED:.0%} by each score (mean of the highest tenth) are dropped; "
            f"{found.kept} of {found.images} are kept.",
            _filtering(found),
        ]
    )


def _settings(sampling: dict[str, Any], signals: Collection[str]) -> str:
    """How the images were sampled, and what the signals cost beyond that."""
    named = [sampling[name] for name in ("sampler_name", "scheduler") if sampling.get(name)]
    numbers = [f"{name} {sampling[name]:g}" for name in ("cfg", "denoise") if sampling.get(name)]
    text = ", ".join([*named, f"{sampling['evaluations']} evaluations", *numbers])
    costs = ["`trajectory` costs nothing more"]
    if "contrast" in signals:
        costs.append(f"`contrast` {len(CONTRAST_LEVELS)} guided evaluations")
    if sampling.get("method"):
        extra = f"{sampling['extra_evaluations']:g}"
        costs.append(f"`posterior`, by {sampling['method']}, {extra}")
    return f"Sampling: {text}; {', '.join(costs)}."


def _warnings(found: Figures) -> list[str]:
    few = min(found.malformed, found.images - found.malformed)
    if few == 0:
        which = "None" if found.malformed == 0 else "Every one"
        return [f"{which} of the images is malformed, so there is nothing to tell apart."]
    if few < 20:
        return [f"Only {few} of one kind: the intervals are wide, and say no more than they span."]
    return []


def _detection(found: Figures) -> str:
    heads = ["signal", "AUROC, mean", "AUROC, top 10%"]
    keys = ["auroc", "auroc_top10"]
    text = ""
    if found.boxed:
        heads.append("peak in a malformed place")
        keys.append("pointing")
        text = (
            f"\n\nPlaces are known of {found.boxed} malformed images; a random point lies in one "
            f"with probability {found.chance:.3f}."
        )
    rows = [
        [_name(name), *(_cell(row[key]) for key in keys)] for name, row in found.signals.items()
    ]
    return markdown_table(heads, rows) + text


def _filtering(found: Figures) -> str:
    rows = [
        ["nothing", f"{found.malformed / found.images:.3f}"],
        [
            f"at random ({RANDOM_DROPS} drops)",
            f"{found.at_random:.3f}, standard deviation {found.deviation:.3f}",
        ],
        *([_name(name), _cell(row["kept_malformed"])] for name, row in found.signals.items()),
        ["the truth itself", f"{found.best:.3f}"],
    ]
    return markdown_table(["dropped by", "malformed among kept"], rows)


def _name(signal: str) -> str:
    return signal if signal in BASELINES else f"`{signal}`"


def _cell(value: Interval) -> str:
    return str(value) if math.isfinite(value.mean) else "-"


def plain(found: Figures) -> dict[str, dict[str, float | None]]:
    """The means by signal, for the last line; None where there was nothing to tell apart."""
    return {
        name: {
            key: round(value.mean, 4) if math.isfinite(value.mean) else None
            for key, value in row.items()
        }
        for name, row in found.signals.items()
    }
