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
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bayesdiff_core.resample.rules import choose_candidate

from ..experiment import Report, Results, command_line, progress, run_sections
from ..metrics import Interval, bootstrap
from ..oracle_truth import load_judge
from .cases import MODES, Case, join, posterior_scores, quadrant_case, sample_again, score
from .loop_figures import choice, loop
from .subjects import SUBJECTS, Subject

__all__ = ["main"]

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
        best, better = choose_candidate(self.scores[rule][:count], original)
        return torch.where(better, right.gather(0, best[None])[0], self.before)


def try_out(case: Case, trial: Trial, report: Report) -> Outcomes:
    """Sample every quadrant of the case again."""
    found: list[Outcomes] = []
    for number, part in enumerate(case.split(BATCH)):
        sampled = sample_again(part, trial.denoise, trial.candidates, number, trial.mode)
        candidates = score(part, sampled)
        if trial.posterior:
            candidates.scores["posterior"] = posterior_scores(
                part, trial.denoise, trial.candidates, number
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
