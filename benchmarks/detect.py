"""Which signal finds what is malformed.

    python -m benchmarks.detect [--quick] [--output docs/evidence/detect.json] [--sections
        choice digits costly digits-cfg1.5 emoji letters costly-letters consistency]

Scenes of the digits and of the letters model have four places that can go wrong, an emoji is
judged whole; the truth is an oracle's (see `benchmarks.judges`). A signal's score of a region is
the mean of its map there, or the mean of the highest tenth. AUROC: the probability that a
malformed region scores above a good one. top-1: how often the only malformed region of a scene has
the highest score of the four (chance 0.25). The section `choice` measures the same signals on
other scenes: whatever is chosen by looking is chosen there. Results are written as sections
finish, and runs are cached. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesdiff_core.methods import PRESETS, BayesDiff, Ensemble, Method, Tangent
from bayesdiff_core.signals import CONTRAST_LEVELS
from bayesdiff_core.uncertainty import posterior_signal

from .filtering import DROPPED, RANDOM_DROPS, Filter, PrincipalAxes
from .judges import FARTHEST, Judge, load_judge
from .metrics import Interval, spearman
from .scenes import CHUNK, STEPS, Scenes, benchmark_model, chunks, sample_scenes
from .setting import Setting
from .signals import (
    FIRST_LEVELS,
    LEVEL_SETS,
    contrast_maps,
    free_maps,
    posterior_maps,
    trajectory_maps,
)
from .table import Table

__all__ = ["SECTIONS", "Plan", "main"]

ARTIFACT = "artifact"
"""What gains are taken over."""

WHOLE = 2 * len(CONTRAST_LEVELS)
CALLS = {
    "artifact": WHOLE,
    "contrast": WHOLE,
    "contrast, first version": 2 * len(FIRST_LEVELS),
    "contrast, wrong prompts": WHOLE,
    "contrast, none and wrong": WHOLE * 3 // 2,
    "contrast, two draws": 2 * WHOLE,
    "contrast, last layer's part": WHOLE,
    "|cond - uncond|": 1,
    "|cond - uncond|, all levels": WHOLE,
    "error with the prompt alone": WHOLE // 2,
    **{f"contrast, level {t:g} alone": 2 for t in CONTRAST_LEVELS},
    **{f"contrast, weight {power}": WHOLE for power in ("t^2", "1")},
    **{f"contrast, window radius {radius}": WHOLE for radius in (0, 2, 4)},
    **{name: 2 * len(levels) for name, levels in LEVEL_SETS.items()},
}
"""Network calls of one side beyond the run itself; the other signals below cost none."""

EVALUATIONS = {
    "posterior": 15,
    "ensemble M=5": 150,
    "bayesdiff S=10": 290,
    "bayesdiff, skip 5": 50,
}
"""Guided evaluations beyond the run itself, of 30 steps."""

WEIGHTS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Plan:
    """What a section measures; `variants` and `posterior` on the first so many of its scenes."""

    model: str
    guidance_scale: float
    first_seed: int
    scenes: int
    variants: int = 0
    posterior: int = 0
    filtering: bool = False

    def settings(self, count: int | None = None) -> Iterator[Setting]:
        count = self.scenes if count is None else min(count, self.scenes)
        return chunks(self.model, self.guidance_scale, count, self.first_seed)

    def sampled(self, count: int) -> Iterator[Scenes]:
        """The first `count` scenes, from the cache where the section was measured before."""
        for done, setting in enumerate(self.settings()):
            left = count - done * CHUNK
            if left <= 0:
                return
            scenes = sample_scenes(setting, done * CHUNK < self.posterior)
            yield scenes if left >= setting.count else scenes.first(left)


SECTIONS = {
    "choice": Plan("digits", 1.0, 4000, 320, variants=320, posterior=320),
    "digits": Plan("digits", 1.0, 5000, 1024, variants=256, posterior=1024, filtering=True),
    "digits-cfg1.5": Plan("digits", 1.5, 6000, 1024, posterior=128),
    "emoji": Plan("emoji", 3.0, 7000, 320, variants=64, posterior=128),
    "letters": Plan("letters", 1.0, 8000, 1024, variants=256, posterior=1024, filtering=True),
}
QUICK = Plan("digits", 1.0, 5000, 128, posterior=128)
COSTLY = {
    "costly": Plan("digits", 1.0, 5000, 256),
    "costly-letters": Plan("letters", 1.0, 8000, 256),
}
COUNTS = {"ensemble M=5": 64, "bayesdiff S=10": 64, "bayesdiff, skip 5": 128}
"""Scenes of the costly methods, run on the first ones of the model's own section."""
CONSISTENCY = Plan("digits", 1.0, 9000, 32)

Report = Callable[[str], None]


def measure(plan: Plan, report: Report) -> dict[str, Any]:
    """Figures of every signal of a plan, and of filtering where it asks for that."""
    judge = load_judge(plan.model)
    main, variants, posterior = tables = [Table(judge) for _ in range(3)]
    features, distances = [], []
    for done, setting in enumerate(plan.settings()):
        wanted = [done * CHUNK < count for count in (plan.scenes, plan.variants, plan.posterior)]
        scenes = sample_scenes(setting, wanted[2])
        probability, seen = judge.look(scenes.latent, scenes.labels)
        features.append(seen)
        distances.append(judge.distance(seen))
        contrasts = contrast_maps(scenes, wanted[1])
        reference = {name: contrasts[name] for name in (ARTIFACT, "contrast")}
        main.add_maps(reference)
        main.add_maps({"contrast, first version": contrasts["contrast, first version"]})
        main.add_maps({**trajectory_maps(scenes), **free_maps(scenes)})
        main.add_scores("oracle", 1 - probability)
        if wanted[1]:
            variants.add_maps(contrasts)
            variants.add_maps({"trajectory": trajectory_maps(scenes)["trajectory"]})
        if wanted[2]:
            posterior.add_maps({**reference, **posterior_maps(scenes)})
        for table, add in zip(tables, wanted, strict=True):
            if add:
                table.add_truth(category=probability <= 0.5)
        report(f"{plan.model} cfg {plan.guidance_scale:g}: chunk {done + 1}")
    if judge.regions == 1:
        add_neighbours(tables, torch.cat(distances))
    add_combinations(*tables)
    found = section(plan, [(table, False) for table in tables])
    if plan.filtering:
        axes, rows = filtering_axes(judge)
        pictures = Filter(
            main.truth("category"), torch.cat(features), judge.real_features[0], axes
        )
        scores = {
            name: table.score(name, "image")
            for table in tables
            for name in table.names
            if name in FILTERS and len(table.truth("category")) == plan.scenes
        }
        rows["plain"] = filter_rows(pictures, scores, oracle_score(main))
        found["filtering"] = rows
    return found


def section(plan: Plan, tables: list[tuple[Table, bool]]) -> dict[str, Any]:
    """Figures of tables, by truth; the first table's scenes describe the section.

    The flag is set where the pictures are the method's own: the published recursion perturbs
    the run.
    """
    found: dict[str, Any] = {"setting": asdict(plan), "steps": STEPS, "truths": {}}
    for truth in tables[0][0].malformed:
        bad = tables[0][0].truth(truth)
        signals: dict[str, Any] = {}
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


def add_neighbours(tables: list[Table], distances: Tensor) -> None:
    """The second truth of a weak oracle: the tenth of the pictures farthest from any real one."""
    far = distances > distances.flatten().quantile(1 - FARTHEST)
    for table in tables:
        count = sum(len(bad) for bad in table.malformed.get("category", []))
        if count:
            table.add_truth(neighbours=far[:count])


def add_combinations(main: Table, variants: Table, posterior: Table) -> None:
    """Sums of standardised scores; which weight is best is read off the section `choice`."""
    for weight in WEIGHTS:
        main.combine(f"contrast + {weight:g} trajectory", {"contrast": 1.0, "trajectory": weight})
    if variants.names:
        parts = {"contrast": 1.0, "contrast, wrong prompts": 1.0, "trajectory": 0.5}
        variants.combine("contrast + wrong prompts + 0.5 trajectory", parts)
    if posterior.names:
        parts = {"contrast": 1.0, "posterior": 0.5}
        posterior.combine("contrast + 0.5 posterior", parts)


def costly(plan: Plan, report: Report) -> dict[str, Any]:
    """The ensemble and the published recursion, and filtering by the latter."""
    judge = load_judge(plan.model)
    methods = {"bayesdiff S=10": BayesDiff(10), "bayesdiff, skip 5": BayesDiff(10, 5)}
    ensemble = Table(judge)
    for setting in plan.settings(COUNTS["ensemble M=5"]):
        add_ensemble(ensemble, judge, setting)
        report("ensemble")
    tables = [(ensemble, False)]
    axes, rows = filtering_axes(judge)
    for name, method in methods.items():
        table, features = Table(judge), []
        for setting in plan.settings(COUNTS[name]):
            features.append(add_published(table, judge, setting, name, method))
            report(name)
        tables.append((table, True))
        pictures = Filter(
            table.truth("category"), torch.cat(features), judge.real_features[0], axes
        )
        scores = {name: table.score(name, "image")}
        rows[f"{name}, its own pictures"] = filter_rows(pictures, scores, oracle_score(table))
    return {**section(plan, tables), "filtering": rows}


def add_ensemble(table: Table, judge: Judge, setting: Setting) -> None:
    """Spread of five members by pixel, and by the oracle's features of every region.

    The second stands for a semantic score in the space of an image encoder (Generative Uncertainty
    in Diffusion Models, 2025). The oracle that judges is also the encoder here, which flatters it.
    """
    method = Ensemble(5, seed=setting.seed, keep_members=True)
    result = method.sample(setting.process(), setting.posterior)
    members = torch.stack([judge.features(m) for m in result.notes["members"]])
    table.add_maps({"ensemble M=5": result.variance.mean(1).sqrt()})
    table.add_scores("ensemble M=5, in the oracle's features", members.var(0).sum(-1).sqrt())
    table.add_truth(category=judge.malformed(result.latent, labels_of(setting)))


def add_published(
    table: Table, judge: Judge, setting: Setting, name: str, method: BayesDiff
) -> Tensor:
    """The published recursion, judged on the pictures it makes, whose features are returned."""
    result = replace(method, seed=setting.seed).sample(setting.process(), setting.posterior)
    probability, features = judge.look(result.latent, labels_of(setting))
    table.add_maps({name: result.variance.mean(1).sqrt()})
    table.add_scores("oracle", 1 - probability)
    table.add_truth(category=probability <= 0.5)
    return features


def labels_of(setting: Setting) -> Tensor:
    return benchmark_model(setting.model).labels(setting.count, setting.seed)


def row_of(table: Table, name: str, truth: str, plan: Plan, own: bool) -> dict[str, Any]:
    bad = table.truth(truth)
    row: dict[str, Any] = {
        "scenes": len(bad),
        "malformed": int(bad.sum()),
        "own_pictures": own,
        "cost": cost_of(name, plan.guidance_scale),
    }
    for key, interval in table.figures(name, truth, ARTIFACT).items():
        row[key] = asdict(interval)
    return row


def cost_of(name: str, guidance_scale: float) -> float:
    """Guided evaluations a step beyond the run itself; of a sum, that of its parts."""
    sides = 1 if guidance_scale == 1 else 2
    if " + " in name:
        first = name.split(" + ")[0]
        calls = CALLS[first] + (WHOLE // 2 if "wrong" in name else 0)
        return (calls / sides + (15 if "posterior" in name else 0)) / STEPS
    for key, evaluations in EVALUATIONS.items():
        if name.startswith(key):
            return evaluations / STEPS
    return CALLS.get(name, 0) / sides / STEPS


FILTERS = (
    "artifact", "trajectory", "contrast, first version", "contrast + 0.5 trajectory", "posterior",
    "contrast + 0.5 posterior", "total variation", "|cond - uncond|",
)  # fmt: skip


def filtering_axes(judge: Judge) -> tuple[PrincipalAxes, dict[str, Any]]:
    """The axes in which distances are taken, and the distance of real parts to held-out ones."""
    held_out, training = judge.real_features
    axes = PrincipalAxes.of(training)
    everything = Filter(
        torch.zeros(len(training), 1, dtype=torch.bool), training[:, None], held_out, axes
    ).keep(torch.arange(len(training)))
    return axes, {
        "axes": axes.axes.shape[1],
        "dropped": DROPPED,
        "random_drops": RANDOM_DROPS,
        "real_to_real": everything.frechet,
    }


def oracle_score(table: Table) -> Tensor:
    """(N,) the upper bound: malformed regions first, then the oracle's doubt."""
    return table.truth("category").sum(1) + table.score("oracle", "mean").mean(1)


def filter_rows(pictures: Filter, scores: dict[str, Tensor], oracle: Tensor) -> dict[str, Any]:
    mean, deviation = pictures.at_random()
    rows = {
        "nothing dropped": asdict(pictures.keep(torch.arange(len(pictures.malformed)))),
        "at random": {**asdict(mean), "deviation": asdict(deviation)},
        **{name: asdict(pictures.by_score(values)) for name, values in scores.items()},
        "oracle": asdict(pictures.by_score(oracle)),
    }
    return {"scenes": len(pictures.malformed), "kept": pictures.count, "rows": rows}


def consistency(plan: Plan, report: Report) -> dict[str, Any]:
    """Rank correlation of whole pictures' scores across skip intervals, and across presets.

    `bayesdiff` draws at random, so its own repetition with another seed says what can be reached.
    """
    methods: dict[str, Method] = {f"bayesdiff, skip {k}": BayesDiff(10, k) for k in range(1, 7)}
    methods["bayesdiff, skip 1, other seed"] = BayesDiff(10, 1, seed=1)
    methods |= {f"tangent {name}": preset for name, preset in PRESETS.items()}
    methods |= {f"tangent, {r} refreshes": Tangent(5, r) for r in (1, 2, 3, 4, 6)}
    methods["tangent balanced, other seed"] = replace(PRESETS["balanced"], seed=1)
    scores = {}
    for name, method in methods.items():
        found = []
        for setting in plan.settings():
            result = method.sample(setting.process(), setting.posterior)
            found.append(posterior_signal(result.variance.sqrt()).scores)
        scores[name] = torch.cat(found)
        report(f"consistency: {name}")
    values = torch.stack(list(scores.values()))
    matrix = [[spearman(a[None], b[None]).item() for b in values] for a in values]
    return {"scenes": plan.scenes, "methods": list(scores), "matrix": matrix}


def print_section(found: dict[str, Any]) -> None:
    plan = found["setting"]
    for truth, table in found["truths"].items():
        print(
            f"\n{plan['model']}, ddim {STEPS}, cfg {plan['guidance_scale']:g}, truth by {truth}: "
            f"{table['scenes']} scenes, {table['malformed']} of {table['regions']} regions "
            f"malformed, {table['scenes_with_one']} scenes with exactly one"
        )
        heads = ("AUROC, mean", "AUROC, top 10%", "top-1", "gain on artifact")
        print(f"{'signal':<40} {'cost':>5} {'scenes':>6} " + " ".join(f"{h:>23}" for h in heads))
        for name, row in table["signals"].items():
            cells = [
                str(Interval(**row[key])) if key in row else "-"
                for key in ("auroc", "auroc_top10", "top1", "gain")
            ]
            print(
                f"{name:<40} {row['cost']:5.2f} {row['scenes']:6} "
                + " ".join(f"{cell:>23}" for cell in cells)
            )
    for name, rows in found.get("filtering", {}).items():
        if isinstance(rows, dict):
            print(f"\nkeep {rows['kept']} of {rows['scenes']} ({name})")
            for rule, kept in rows["rows"].items():
                print(
                    f"{rule:<40} regions {kept['regions']:.4f} scenes {kept['scenes']:.4f} "
                    f"frechet {kept['frechet']:.4f}"
                )


def last_line(details: dict[str, Any]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Figures by model and signal; what was measured on fewer scenes does not replace others."""
    models: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, found in details.items():
        if name in ("choice", "consistency"):
            continue
        plan = found["setting"]
        for truth, table in found["truths"].items():
            model = f"{plan['model']} cfg {plan['guidance_scale']:g}"
            if truth != "category":
                model = f"{model}, {truth}"
            for signal, row in table["signals"].items():
                figures = {
                    key: round(row[key]["mean"], 4) if key in row else None
                    for key in ("auroc", "auroc_top10", "top1")
                }
                models.setdefault(model, {}).setdefault(signal, figures)
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="128 scenes of digits at cfg 1")
    parser.add_argument("--sections", nargs="+", choices=[*SECTIONS, *COSTLY, "consistency"])
    parser.add_argument("--scenes", type=int, help="scenes a section")
    parser.add_argument("--output", type=Path, help="write every figure there, section by section")
    arguments = parser.parse_args()
    details: dict[str, Any] = {}
    if arguments.output and arguments.output.is_file():
        details = json.loads(arguments.output.read_text())
    plans = SECTIONS | COSTLY | {"consistency": CONSISTENCY}
    if arguments.quick:
        plans = {"digits": QUICK}
    start = time.perf_counter()

    def report(text: str) -> None:
        if not arguments.quick:
            print(f"[{time.perf_counter() - start:6.0f} s] {text}", flush=True)

    measures = dict.fromkeys(COSTLY, costly) | {"consistency": consistency}
    for name in arguments.sections or plans:
        plan = plans[name]
        if arguments.scenes:
            plan = replace(plan, scenes=arguments.scenes)
        details[name] = measures.get(name, measure)(plan, report)
        if name != "consistency":
            print_section(details[name])
        if arguments.output:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(details, indent=1) + "\n")
    print(json.dumps({"benchmark": "detect", "models": last_line(details)}))


if __name__ == "__main__":
    main()
