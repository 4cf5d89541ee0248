"""Figures of the loop: scenes right after each round, against scenes sampled anew at its cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..cache import CACHE
from ..experiment import Report, Results, replacing
from ..metrics import auroc, bootstrap
from ..oracle_truth import load_judge
from ..recorded_runs import STEPS
from .loop import CONTRAST_COST, Loop, State, begin, one_round, sample_anew
from .subjects import Subject

__all__ = ["PICTURES", "Anew", "choice", "loop"]

PICTURES = CACHE / "loop.safetensors"
"""Where the loop leaves its first scenes, for the pictures of docs/evidence.md."""


def choice(subject: Subject, count: int, report: Report) -> Results:
    """The growth of the masks, by one round of the loop on scenes of their own.

    Beside it stands how well the threshold tells regions apart there, and the best threshold by
    Youden's J of the highest tenth.
    """
    plan, rule = subject.choosing, subject.rule
    judge = load_judge(plan.model)
    states = [begin(scenes, rule) for scenes in plan.sampled(count)]
    bad = torch.cat([judge.malformed(s.recording.final, s.labels) for s in states])
    top = torch.cat(
        [
            judge.split(s.map).topk(max(round(s.map[0].numel() / 40), 1), -1).values.mean(-1)
            for s in states
        ]
    )
    values = top.flatten().quantile(torch.linspace(0.5, 0.995, 100))
    gains = [
        ((top > v) & bad).sum() / bad.sum() - ((top > v) & ~bad).sum() / (~bad).sum()
        for v in values
    ]
    threshold = round(values[int(torch.stack(gains).argmax())].item(), 3)
    rows = []
    for grow in subject.grows:
        loop = replace(rule, grow=grow)
        done = [one_round(state, loop, seed)[0] for seed, state in enumerate(states)]
        right = torch.cat([right_scenes(state) for state in done])
        cost = torch.cat([state.cost for state in done]).mean().item()
        rows.append({"grow": grow, "right": asdict(bootstrap(right)), "cost": cost})
        report(f"choice: grow {grow:g}")
    before = torch.cat([right_scenes(state) for state in states])
    return {
        "scenes": count,
        "rule": asdict(rule),
        "threshold": threshold,
        "youden": max(gains).item(),
        "auroc_top10": auroc(top, bad),
        "right_before": asdict(bootstrap(before)),
        "grow": rows,
    }


def right_scenes(state: State) -> Tensor:
    """1.0 where all regions of a scene are right (B,)."""
    bad = load_judge(state.model).malformed(state.recording.final, state.labels)
    return (~bad).all(1).float()


def loop(subject: Subject, count: int, turns: int, samples: int, report: Report) -> Results:
    """The loop for up to `turns` rounds, and `samples` fresh ones of every scene."""
    plan, rule = subject.scenes, subject.rule
    judge = load_judge(plan.model)
    verdicts, costs, fresh = [], [], []
    outside = 0.0
    for number, scenes in enumerate(plan.sampled(count)):
        history, touched = rounds_of(begin(scenes, rule), rule, turns, 100 * number)
        change = (history[-1].recording.final - scenes.latent).abs() * (1 - touched[:, None])
        outside = max(outside, change.max().item())
        bad = torch.stack([judge.malformed(s.recording.final, s.labels) for s in history])
        verdicts.append(bad)
        costs.append(torch.stack([state.cost for state in history]))
        if number == 0 and plan.model == "digits":
            keep_for_pictures(history, touched, bad)
        report(f"loop: chunk {number + 1}")
        fresh.append(anew_of(history[0], rule, samples, 50_000 + 100 * number))
        report(f"loop: chunk {number + 1} sampled anew")
    anew = Anew(*(torch.cat(part, -1) for part in zip(*fresh, strict=True)))
    bad, cost = torch.cat(verdicts, 1), torch.cat(costs, 1)
    return {
        "scenes": len(anew.flagged),
        "rule": asdict(rule),
        "flagged": anew.flagged.float().mean().item(),
        "outside_max_abs": outside,
        "rounds": [round_row(r, cost[r], bad[r], bad[0], anew) for r in range(turns + 1)],
    }


def rounds_of(state: State, rule: Loop, turns: int, seed: int) -> tuple[list[State], Tensor]:
    """The states before and after each round, and the union (B, H, W) of all masks."""
    history, touched = [state], torch.zeros_like(state.map)
    for turn in range(turns):
        state, masks = one_round(state, rule, seed + turn)
        touched = torch.maximum(touched, masks)
        history.append(state)
    return history, touched


def keep_for_pictures(history: list[State], touched: Tensor, bad: Tensor) -> None:
    first, last = history[0], history[-1]
    shown = {
        "before": first.recording.final, "map": first.map, "mask": touched,
        "after": last.recording.final, "labels": first.labels,
        "bad_before": bad[0].float(), "bad_after": bad[-1].float(),
    }  # fmt: skip
    with replacing(PICTURES) as unfinished:
        save_file({name: value.contiguous() for name, value in shown.items()}, unfinished)


def anew_of(state: State, rule: Loop, samples: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fields of `Anew` for scenes as they are and sampled `samples` times again."""
    judge = load_judge(state.model)
    scores, right = [state.score], [right_scenes(state)]
    for k in range(samples):
        latent, score = sample_anew(state.model, state.labels, seed + k)
        scores.append(score)
        right.append((~judge.malformed(latent, state.labels)).all(1).float())
    flagged = rule.masks(state.map).flatten(1).any(1)
    return torch.stack(scores), torch.stack(right), flagged


@dataclass(frozen=True)
class Anew:
    """Scores and verdicts (K, N) of scenes sampled K times, and which were flagged (N,)."""

    scores: Tensor
    right: Tensor
    flagged: Tensor

    def best_of(self, count: int) -> Tensor:
        """Verdicts (N,) of the best of the first `count` by score."""
        best = self.scores[:count].argmin(0)
        return self.right.gather(0, best[None])[0]

    def at_cost(self, extra: float, adaptive: bool) -> Tensor | None:
        """Verdicts (N,) when every scene, or every flagged one, is sampled again for `extra`
        guided evaluations per scene (mean over all); None when more were needed than sampled.

        A fraction of a sample is a share of the scenes that gets one more: the mixture of both.
        """
        places = self.flagged.float().mean().item() if adaptive else 1.0
        more = extra / places / (STEPS + CONTRAST_COST)
        low = 1 + int(more)
        if low + 1 > len(self.scores):
            return None
        part = more - int(more)
        mixed = (1 - part) * self.best_of(low) + part * self.best_of(low + 1)
        return torch.where(self.flagged, mixed, self.right[0]) if adaptive else mixed


def round_row(number: int, cost: Tensor, bad: Tensor, bad_before: Tensor, anew: Anew) -> Results:
    """Figures after a round: of costs (N,), and of malformed regions (N, R) now and before."""
    right = (~bad).all(1).float()
    extra = cost.mean().item() - STEPS - CONTRAST_COST
    row: Results = {
        "rounds": number,
        "cost": cost.mean().item(),
        "right": asdict(bootstrap(right)),
        "regions_right": (~bad).float().mean().item(),
        "regions_fixed": (~bad[bad_before]).float().mean().item(),
        "regions_broken": bad[~bad_before].float().mean().item(),
    }
    for name, adaptive in (("anew_all", False), ("anew_flagged", True)):
        baseline = anew.at_cost(extra, adaptive)
        if baseline is not None:
            row[name] = asdict(bootstrap(baseline))
            row[f"gain_over_{name}"] = asdict(bootstrap(right - baseline))
    return row
