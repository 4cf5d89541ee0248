"""Detection of malformed images and regions by every signal, as AUROC and top-1.

    python -m benchmarks.detect [--quick] [--output docs/evidence/detect.json] [--sections
        choice digits costly digits-cfg1.5 emoji letters costly-letters consistency]

Scenes of the digits and of the letters model have four places that can go wrong, an emoji is
judged whole; the truth is an oracle's (`benchmarks.oracle_truth`). A signal's score of a region is
the mean of its map there, or the mean of the highest tenth. AUROC: the probability that a
malformed region scores above a good one. top-1: how often the only malformed region of a scene has
the highest score of the four (chance 0.25). The section `choice` measures the same signals on
other scenes: whatever is chosen by looking is chosen there. Results are written as sections
finish, and runs are cached. The last line is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..experiment import Report, Results, command_line, progress, run_sections
from ..metrics import Interval
from ..oracle_truth import FARTHEST, load_judge
from ..recorded_runs import CHUNK, STEPS, sample_scenes
from .candidate_signals import contrast_maps, image_maps, posterior_maps, trajectory_maps
from .costly import consistency, costly
from .filtering import filter_rows, filtering_axes
from .sections import CONSISTENCY, COSTLY, QUICK, SECTIONS, Plan
from .table import REFERENCE, Table, section_figures

__all__ = ["main", "measure"]

WEIGHTS = (0.25, 0.5, 1.0)

FILTERS = (
    "artifact", "trajectory", "contrast, first version", "contrast + 0.5 trajectory", "posterior",
    "contrast + 0.5 posterior", "total variation", "|cond - uncond|",
)  # fmt: skip


def measure(plan: Plan, report: Report) -> Results:
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
        reference = {name: contrasts[name] for name in (REFERENCE, "contrast")}
        main.add_maps(reference)
        main.add_maps({"contrast, first version": contrasts["contrast, first version"]})
        main.add_maps({**trajectory_maps(scenes), **image_maps(scenes)})
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
    found = section_figures(plan, [(table, False) for table in tables])
    if plan.filtering:
        scores = {
            name: table.score(name, "image")
            for table in tables
            for name in table.names
            if name in FILTERS and len(table.truth("category")) == plan.scenes
        }
        axes, found["filtering"] = filtering_axes(judge)
        found["filtering"]["plain"] = filter_rows(main, torch.cat(features), judge, axes, scores)
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


def print_section(found: Results) -> None:
    if "truths" not in found:
        return
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


def last_line(details: Results) -> dict[str, dict[str, dict[str, float | None]]]:
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
    parser = command_line(
        "detect",
        __doc__,
        quick="128 scenes of digits at cfg 1",
        sections=[*SECTIONS, *COSTLY, "consistency"],
        output="write every figure there, section by section",
    )
    parser.add_argument("--scenes", type=int, help="scenes per section")
    arguments = parser.parse_args()
    plans = SECTIONS | COSTLY | {"consistency": CONSISTENCY}
    if arguments.quick:
        plans = {"digits": QUICK}
    if arguments.scenes:
        plans = {name: replace(plan, scenes=arguments.scenes) for name, plan in plans.items()}
    report = progress(quiet=arguments.quick)
    kinds: dict[str, Callable[[Plan, Report], Results]] = dict.fromkeys(plans, measure)
    kinds |= dict.fromkeys(COSTLY, costly) | {"consistency": consistency}
    sections = {name: partial(kinds[name], plan, report) for name, plan in plans.items()}
    names = arguments.sections or plans
    details = run_sections(sections, names, print_section, arguments.output)
    print(json.dumps({"benchmark": "detect", "models": last_line(details)}))
