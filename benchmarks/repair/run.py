"""Repair of malformed regions by sampling them again, against sampling the whole image anew.

    python -m benchmarks.repair [--quick] [--sections grid default choice loop
        letters-default letters-choice letters-loop] [--output docs/evidence/repair.json]

Digits and letters at cfg 1, on the scenes of these sections of the detection benchmark.

- `grid` and `default`: quadrants that the oracle finds malformed, and good ones, are sampled again
  under a mask of the whole quadrant; the oracle judges the outcome of every noise mode, start
  point, number of candidates and rule. It takes no part in choosing but in the row that shows what
  a perfect choice would give. The first N of one batch of candidates stand for N candidates.
- `loop`: no oracle. `artifact` finds, a fixed rule masks (its constants come from `choice`, on
  other scenes), regions are sampled again and judged one by one, and the original stays where
  nothing beats it. Set against the same number of guided evaluations spent on sampling whole
  scenes again and keeping the best by `artifact`.

Intervals are over quadrants or scenes. The last line is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from safetensors.torch import save_file
from torch import Tensor

from bayesdiff_core.resample.masked_run import choose

from ..cache import CACHE
from ..detection.sections import SECTIONS as DETECTION
from ..detection.sections import Plan
from ..experiment import Report, Results, command_line, progress, run_sections
from ..metrics import Interval, auroc, bootstrap
from ..oracle_truth import load_judge
from ..recorded_runs import STEPS
from .cases import MODES, Case, join, quadrant_case, sample_again
from .loop import CONTRAST_COST, Loop, State, begin, one_round, sample_anew

__all__ = ["PICTURES", "main"]

PICTURES = CACHE / "loop.safetensors"
"""Where the loop leaves its first scenes, for the pictures of docs/evidence.md."""

COUNTS = (1, 2, 4, 8)
RULES = ("random", "posterior", "trajectory", "contrast", "artifact", "oracle")
BATCH = 16
ROUNDS, ANEW = 2, 6
"""Rounds of the loop, and how often every scene is sampled anew to have what they cost."""

QUICK_ROUNDS, QUICK_ANEW = 1, 4
DEFAULT = ("denoised", 0.7, 4)

SECTIONS = (
    "grid", "default", "choice", "loop",
    "letters-default", "letters-choice", "letters-loop",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One cell of the grid: how a region is sampled again, and how many candidates at once."""

    mode: str
    denoise: float
    candidates: int
    posterior: bool = False


@dataclass(frozen=True)
class Subject:
    """A model's scenes, others to choose the rule of the loop on, and that rule as chosen."""

    scenes: Plan
    choosing: Plan
    rule: Loop
    grows: tuple[float, ...]


SUBJECTS = {
    "digits": Subject(
        DETECTION["digits"], DETECTION["choice"], Loop(threshold=0.11, grow=4.0), (2.0, 4.0, 8.0)
    ),
    "letters": Subject(
        DETECTION["letters"],
        Plan("letters", 1.0, 8500, 128),
        Loop(threshold=0.06, grow=1.0, minimum_area=3),
        (0.0, 1.0, 2.0),
    ),
}

GRID = [
    *(Trial("denoised", start, 8) for start in (0.3, 0.5)),
    *(Trial("denoised", start, 8, posterior=True) for start in (0.7, 1.0)),
    *(Trial(mode, start, 4) for mode in ("final", "img2img") for start in (0.3, 0.5, 0.7)),
    *(Trial(mode, start, 2) for mode in MODES if "posterior" in mode for start in (0.3, 0.5, 0.7)),
]
"""At 1.0 nothing of the recording is left inside the mask, so that all modes are one."""

GOOD = [Trial("denoised", start, 4, posterior=True) for start in (0.7, 1.0)]


def quadrants(subject: Subject, first: int, count: int) -> tuple[Case, Case]:
    """`count` malformed quadrants in the order of their seeds, `first` left out; as many good."""
    plan = subject.scenes
    judge = load_judge(plan.model)
    bad: list[Case] = []
    good: list[Case] = []
    have = 0
    for scenes in plan.sampled(plan.scenes):
        malformed = judge.malformed(scenes.latent, scenes.labels)
        index = malformed.nonzero()
        others = (~malformed).nonzero()
        generator = torch.Generator().manual_seed(scenes.setting.seed)
        drawn = others[torch.randperm(len(others), generator=generator)[: len(index)]]
        bad.append(quadrant_case(scenes, index))
        good.append(quadrant_case(scenes, drawn))
        have += len(index)
        if have >= first + count:
            break
    keep = torch.arange(first, min(first + count, have))
    return join(bad).select(keep), join(good).select(keep)


@dataclass
class Outcomes:
    """What became of every case: right (N, B) by candidate, scores (N, B), and the originals."""

    right: Tensor
    before: Tensor
    scores: dict[str, Tensor]
    original: dict[str, Tensor]
    outside: float

    def after(self, rule: str, count: int, keep: bool) -> Tensor:
        """Which quadrants (B,) are right when `rule` chooses of the first `count` candidates.

        With `keep` the original stays where no candidate has a lower score.
        """
        right = self.right[:count]
        if rule == "random":
            return right[0]
        if rule == "oracle":
            return right.any(0)
        original = self.original.get(rule) if keep else None
        best, better = choose(self.scores[rule][:count], original)
        return torch.where(better, right.gather(0, best[None])[0], self.before)


def try_out(case: Case, trial: Trial, report: Report) -> Outcomes:
    """Sample every quadrant of the case again."""
    found: list[Outcomes] = []
    for number, part in enumerate(case.split(BATCH)):
        candidates = sample_again(
            part, trial.denoise, trial.candidates, number, MODES[trial.mode], trial.posterior
        )
        final = part.recording.final
        outside = (candidates.latents - final).abs() * (1 - part.masks)
        found.append(
            Outcomes(
                torch.stack([accepted(part, latent) for latent in candidates.latents]),
                accepted(part, final),
                candidates.scores,
                candidates.original,
                outside.max().item(),
            )
        )
    report(f"{trial.mode}, start {trial.denoise:g}: {len(case.labels)} quadrants")
    return Outcomes(
        torch.cat([part.right for part in found], 1),
        torch.cat([part.before for part in found]),
        {name: torch.cat([p.scores[name] for p in found], 1) for name in found[0].scores},
        {name: torch.cat([p.original[name] for p in found]) for name in found[0].original},
        max(part.outside for part in found),
    )


def accepted(case: Case, latents: Tensor) -> Tensor:
    """Whether the quadrant of each case (B,) shows its digit."""
    assert case.quadrant is not None
    malformed = load_judge(case.model).malformed(latents, case.labels)
    return ~malformed.gather(1, case.quadrant[:, None])[:, 0]


def rows_of(trial: Trial, kind: str, found: Outcomes) -> list[Results]:
    """Every rule and number of candidates; the mean over all of them stands for one at random."""
    base = {"kind": kind, "mode": trial.mode, "denoise": trial.denoise, "cases": len(found.before)}
    single = bootstrap(found.right.float().mean(0))
    rows = [{**base, "rule": "random", "n": 1, "keep": False, "right": asdict(single)}]
    for count in COUNTS:
        if count > trial.candidates:
            break
        for rule in RULES:
            if rule == "random" or (rule == "posterior" and "posterior" not in found.scores):
                continue
            for keep in (False, True) if rule in found.original else (False,):
                right = bootstrap(found.after(rule, count, keep).float())
                rows.append(
                    {**base, "rule": rule, "n": count, "keep": keep, "right": asdict(right)}
                )
    return rows


def grid(cases: tuple[Case, Case], plan: Sequence[tuple[str, Trial]], report: Report) -> Results:
    rows: list[Results] = []
    outside = 0.0
    for kind, trial in plan:
        found = try_out(cases[kind == "good"], trial, report)
        outside = max(outside, found.outside)
        rows += rows_of(trial, kind, found)
    return {"rows": rows, "outside_max_abs": outside}


def choice(subject: Subject, count: int, report: Report) -> Results:
    """The growth of the masks, by one round of the loop on scenes of their own, and how well the
    threshold tells regions apart there (the best by Youden's J of the highest tenth)."""
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
    rounds: list[list[Tensor]] = [[] for _ in range(turns + 1)]
    costs: list[list[Tensor]] = [[] for _ in range(turns + 1)]
    regions: list[list[Tensor]] = [[] for _ in range(turns + 1)]
    flagged, anew_right, anew_score = [], [], []
    outside, shown = 0.0, {}
    plan, rule = subject.scenes, subject.rule
    judge = load_judge(plan.model)
    for number, scenes in enumerate(plan.sampled(count)):
        state = begin(scenes, rule)
        score, found = [state.score], rule.masks(state.map).flatten(1).any(1)
        right = [right_scenes(state)]
        flagged.append(found)
        touched = torch.zeros_like(state.map)
        history = [state]
        for r in range(turns):
            state, masks = one_round(state, rule, 100 * number + r)
            touched = torch.maximum(touched, masks)
            history.append(state)
        change = (state.recording.final - scenes.latent).abs() * (1 - touched[:, None])
        outside = max(outside, change.max().item())
        for r, at in enumerate(history):
            rounds[r].append(right_scenes(at))
            costs[r].append(at.cost)
            regions[r].append(judge.malformed(at.recording.final, at.labels))
        if number == 0 and plan.model == "digits":
            shown = {
                "before": scenes.latent, "map": history[0].map, "mask": touched,
                "after": state.recording.final, "labels": scenes.labels,
                "bad_before": regions[0][0].float(), "bad_after": regions[-1][0].float(),
            }  # fmt: skip
        report(f"loop: chunk {number + 1}")
        for k in range(samples):
            latent, value = sample_anew(plan.model, scenes.labels, 50_000 + 100 * number + k)
            score.append(value)
            right.append((~judge.malformed(latent, scenes.labels)).all(1).float())
        anew_score.append(torch.stack(score))
        anew_right.append(torch.stack(right))
        report(f"loop: chunk {number + 1} sampled anew")
    if shown:
        PICTURES.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in shown.items()}, PICTURES)
    at = Anew(torch.cat(anew_score, 1), torch.cat(anew_right, 1), torch.cat(flagged))
    return {
        "scenes": len(at.flagged),
        "rule": asdict(rule),
        "flagged": at.flagged.float().mean().item(),
        "outside_max_abs": outside,
        "rounds": [
            round_row(r, torch.cat(rounds[r]), torch.cat(costs[r]), torch.cat(regions[r]),
                      torch.cat(regions[0]), at)
            for r in range(turns + 1)
        ],
    }  # fmt: skip


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
        guided evaluations a scene (mean over all); None when more were needed than sampled.

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


def round_row(
    number: int, right: Tensor, cost: Tensor, bad: Tensor, bad_before: Tensor, anew: Anew
) -> Results:
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


def print_rows(found: Results) -> None:
    print(f"{'kind':<5} {'mode':<20} {'start':>5} {'rule':<12} {'N':>2} {'kept':>5} {'right':>22}")
    for row in found["rows"]:
        print(
            f"{row['kind']:<5} {row['mode']:<20} {row['denoise']:5g} {row['rule']:<12} "
            f"{row['n']:2} {'yes' if row['keep'] else 'no':>5} {Interval(**row['right'])!s:>22}"
        )
    print(f"largest change outside the mask: {found['outside_max_abs']:g}")


def print_loop(found: Results) -> None:
    print(f"{found['scenes']} scenes, {found['flagged']:.3f} flagged; rule {found['rule']}")
    for row in found["rounds"]:
        print(
            f"rounds {row['rounds']}: cost {row['cost']:.1f}, right {Interval(**row['right'])}, "
            f"regions fixed {row['regions_fixed']:.3f}, broken {row['regions_broken']:.4f}"
        )
        for name in ("anew_all", "anew_flagged"):
            if name in row:
                gain = Interval(**row[f"gain_over_{name}"])
                print(f"    {name:<13} {Interval(**row[name])}, gain {gain}")
    print(f"largest change outside the masks: {found['outside_max_abs']:g}")


def rate(details: Results, kind: str) -> float | None:
    """Share right under the product's default, of the section with the most cases."""
    mode, denoise, count = DEFAULT
    wanted = {"kind": kind, "mode": mode, "denoise": denoise, "rule": "artifact", "n": count}
    for name in ("default", "grid"):
        for row in details.get(name, {}).get("rows", []):
            if row["keep"] and all(row[key] == value for key, value in wanted.items()):
                return float(row["right"]["mean"])
    return None


def last_line(details: Results) -> Results:
    """One round of the loop against the better of both ways to sample anew at its cost."""
    fixed, kept = rate(details, "bad"), rate(details, "good")
    rounds = details.get("loop", {}).get("rounds", [])
    outside = [part["outside_max_abs"] for part in details.values() if "outside_max_abs" in part]
    once = rounds[1] if rounds else {}
    baselines = [once[name]["mean"] for name in ("anew_all", "anew_flagged") if name in once]
    return {
        "benchmark": "repair",
        "bad_fixed": fixed,
        "good_broken": None if kept is None else round(1 - kept, 4),
        "scenes_right_before": rounds[0]["right"]["mean"] if rounds else None,
        "scenes_right_after": once["right"]["mean"] if once else None,
        "resample_all_baseline": max(baselines) if baselines else None,
        "outside_max_abs": max(outside) if outside else None,
    }


def print_section(found: Results) -> None:
    if "rows" in found:
        print_rows(found)
    elif "rounds" in found:
        print_loop(found)
    else:
        print(json.dumps(found, indent=1))


def main() -> None:
    arguments = command_line(
        "repair",
        __doc__,
        quick="12 quadrants and 24 scenes of digits",
        sections=SECTIONS,
        output="write every figure there, section by section",
    ).parse_args()
    report = progress(quiet=arguments.quick)
    default = [(kind, Trial("denoised", 0.7, 4)) for kind in ("bad", "good")]
    full = [*(("bad", trial) for trial in GRID), *(("good", trial) for trial in GOOD)]
    cases, scenes = (12, 24) if arguments.quick else (160, 192)
    turns = (QUICK_ROUNDS, QUICK_ANEW) if arguments.quick else (ROUNDS, ANEW)
    digits, letters = SUBJECTS["digits"], SUBJECTS["letters"]
    sections: dict[str, Callable[[], Results]] = {
        "grid": lambda: grid(quadrants(digits, 0, 32), full, report),
        "default": lambda: grid(quadrants(digits, 0, cases), default, report),
        "choice": lambda: choice(digits, 128, report),
        "loop": lambda: loop(digits, scenes, *turns, report),
        "letters-default": lambda: grid(quadrants(letters, 0, cases), default, report),
        "letters-choice": lambda: choice(letters, 128, report),
        "letters-loop": lambda: loop(letters, scenes, *turns, report),
    }
    names = arguments.sections or (["default", "loop"] if arguments.quick else list(sections))
    details = run_sections(sections, names, print_section, arguments.output)
    print(json.dumps(last_line(details)))
