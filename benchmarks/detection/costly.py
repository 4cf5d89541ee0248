"""Methods too costly for every scene: the ensemble and the published recursion, on a few."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayesdiff_core.methods import PRESETS, BayesDiff, Ensemble, Method, Tangent
from bayesdiff_core.uncertainty import posterior_signal

from ..experiment import Report, Results
from ..metrics import spearman
from ..models import Setting, benchmark_model
from ..oracle_truth import Judge, load_judge
from .filtering import filter_rows, filtering_axes
from .sections import COSTLY_SCENES, Plan
from .table import Table, section_figures

__all__ = ["consistency", "costly"]


def costly(plan: Plan, report: Report) -> Results:
    """The ensemble and the published recursion, and filtering by the latter."""
    judge = load_judge(plan.model)
    methods = {"bayesdiff S=10": BayesDiff(10), "bayesdiff, skip 5": BayesDiff(10, 5)}
    ensemble = Table(judge)
    for setting in plan.settings(COSTLY_SCENES["ensemble M=5"]):
        add_ensemble(ensemble, judge, setting)
        report("ensemble")
    tables = [(ensemble, False)]
    axes, rows = filtering_axes(judge)
    for name, method in methods.items():
        table, features = Table(judge), []
        for setting in plan.settings(COSTLY_SCENES[name]):
            features.append(add_published(table, judge, setting, name, method))
            report(name)
        tables.append((table, True))
        scores = {name: table.score(name, "image")}
        rows[f"{name}, its own pictures"] = filter_rows(
            table, torch.cat(features), judge, axes, scores
        )
    return {**section_figures(plan, tables), "filtering": rows}


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


def consistency(plan: Plan, report: Report) -> Results:
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
