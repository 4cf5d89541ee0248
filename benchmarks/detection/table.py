"""Scores of signals against a truth: AUROC and top-1, with intervals over scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from bayesdiff_core.ranking import pool

from ..experiment import Results
from ..metrics import Interval, auroc
from ..oracle_truth import Judge
from ..recorded_runs import STEPS
from .costs import cost_of
from .sections import Plan

__all__ = ["REFERENCE", "Table", "over_scenes", "section_figures", "standardised", "top1"]

REFERENCE = "artifact"
"""The signal that gains are taken over."""

Figure = Callable[[Tensor, Tensor], float]
POOLINGS = ("mean", "top10", "image")


@dataclass
class Table:
    """Scores of the same scenes by every signal, and which of their regions are malformed.

    `mean` and `top10` are scores (N, R) of the regions: the mean of a map there, or the mean of
    its highest tenth. `image` (N,) is the product's score of the whole picture. `malformed` holds
    one (N, R) for every truth.
    """

    judge: Judge
    scores: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    malformed: dict[str, list[Tensor]] = field(default_factory=dict)

    def add_truth(self, **truths: Tensor) -> None:
        for name, bad in truths.items():
            self.malformed.setdefault(name, []).append(bad)

    def add_maps(self, maps: dict[str, Tensor]) -> None:
        """Maps (B, H, W) by signal."""
        for name, values in maps.items():
            parts = self.judge.split(values)
            top = parts.topk(max(round(parts.shape[-1] / 10), 1), -1).values.mean(-1)
            self._add(name, parts.mean(-1), top, pool(values, "top10"))

    def add_scores(self, name: str, scores: Tensor) -> None:
        """Scores (B, R) of a signal that has no map; a picture's score is that of its worst."""
        self._add(name, scores, scores, scores.amax(1))

    def _add(self, name: str, *scores: Tensor) -> None:
        row = self.scores.setdefault(name, {pooling: [] for pooling in POOLINGS})
        for pooling, values in zip(POOLINGS, scores, strict=True):
            row[pooling].append(values.float())

    @property
    def names(self) -> list[str]:
        return list(self.scores)

    def score(self, name: str, pooling: str) -> Tensor:
        return torch.cat(self.scores[name][pooling])

    def truth(self, name: str) -> Tensor:
        return torch.cat(self.malformed[name])

    def combine(self, name: str, parts: dict[str, float]) -> None:
        """Add a signal: the weighted sum of others' standardised scores, without any truth.

        Trajectory and posterior enter as logarithms: their scores spread over decades.
        """
        for pooling in POOLINGS:
            total = sum(
                weight * standardised(self.score(part, pooling), part)
                for part, weight in parts.items()
            )
            assert isinstance(total, Tensor)
            self.scores.setdefault(name, {})[pooling] = [total]

    def figures(self, name: str, truth: str, reference: str | None = None) -> dict[str, Interval]:
        """AUROC by both poolings and top-1; with a reference also the difference to it, paired."""
        bad = self.truth(truth)
        mean, top = self.score(name, "mean"), self.score(name, "top10")
        found = {
            "auroc": over_scenes(auroc, mean, bad),
            "auroc_top10": over_scenes(auroc, top, bad),
        }
        if bad.shape[1] > 1:
            found["top1"] = over_scenes(top1, top, bad)
        if reference is not None and reference in self.scores:
            pair = torch.stack([top, self.score(reference, "top10")], -1)

            def gain(scores: Tensor, positive: Tensor) -> float:
                return auroc(scores[..., 0], positive) - auroc(scores[..., 1], positive)

            found["gain"] = over_scenes(gain, pair, bad)
        return found


def standardised(scores: Tensor, name: str) -> Tensor:
    """Scores with mean 0 and standard deviation 1 over everything at hand."""
    if name.startswith(("trajectory", "posterior")):
        scores = scores.clamp(min=1e-12).log()
    return (scores - scores.mean()) / scores.std().clamp(min=1e-12)


def top1(scores: Tensor, bad: Tensor) -> float:
    """Share of the scenes with one malformed region whose highest score is that region's."""
    single = bad.sum(1) == 1
    if not single.any():
        return float("nan")
    hit = scores[single].argmax(1) == bad[single].int().argmax(1)
    return hit.float().mean().item()


def over_scenes(figure: Figure, scores: Tensor, bad: Tensor, repetitions: int = 200) -> Interval:
    """A figure with its 95% interval from resampled scenes."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(repetitions):
        index = torch.randint(len(bad), (len(bad),), generator=generator)
        values.append(figure(scores[index], bad[index]))
    finite = np.asarray(values)[np.isfinite(values)]
    if not len(finite):
        return Interval(figure(scores, bad), float("nan"), float("nan"))
    low, high = np.percentile(finite, [2.5, 97.5])
    return Interval(figure(scores, bad), float(low), float(high))


def section_figures(plan: Plan, tables: list[tuple[Table, bool]]) -> Results:
    """Figures of tables, by truth; the first table's scenes describe the section.

    The flag is set where the pictures are the method's own: the published recursion perturbs
    the run.
    """
    found: Results = {"setting": asdict(plan), "steps": STEPS, "truths": {}}
    for truth in tables[0][0].malformed:
        bad = tables[0][0].truth(truth)
        signals: Results = {}
        for table, own in tables:
            for name in table.names:
                if name not in signals and name != "oracle":
                    signals[name] = row_of(table, name, truth, plan, own)
        found["truths"][truth] = {
            "scenes": len(bad),
            "regions": bad.numel(),
            "malformed": int(bad.sum()),
            "scenes_with_one": int((bad.sum(1) == 1).sum()),
            "signals": signals,
        }
    return found


def row_of(table: Table, name: str, truth: str, plan: Plan, own: bool) -> Results:
    bad = table.truth(truth)
    row: Results = {
        "scenes": len(bad),
        "malformed": int(bad.sum()),
        "own_pictures": own,
        "cost": cost_of(name, plan.guidance_scale),
    }
    for key, interval in table.figures(name, truth, REFERENCE).items():
        row[key] = asdict(interval)
    return row
