"""Fidelity of each method to the true posterior spread, and what it costs.

    python -m benchmarks.fidelity [--quick] [--models digits emoji letters] [--members 64]
                                  [--images 8] [--batches 2] [--output docs/fidelity]

The truth is brute force: `--members` whole runs with weights from the posterior (T1). A cell is a
model, a sampler and a guidance scale; its batches differ in noise, labels and all weight draws.
Every figure is a mean over images with its 95% bootstrap interval. `partial` is the rank
correlation once image content is regressed out; a method that does not beat the free baselines
there has found nothing. Truths are cached, so a second run is quick. The last line is JSON.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesdiff_core.methods import PRESETS, BayesDiff, Ensemble, Method, UnsupportedSolverError

from ..baselines import baseline_maps
from ..experiment import command_line, write_json
from ..memory import peak_bytes
from ..metrics import Interval, bootstrap, partial_spearman, pearson, spearman
from ..models import Setting
from .truth import Cell, Truth, per_pixel_std, truth_for

__all__ = ["MODELS", "cells_for", "main", "run"]

MODELS = ("digits", "emoji", "letters")

GRID = (
    ("ddim", 30, 1.0),
    ("ddim", 30, 3.0),
    ("dpmpp_2m", 15, 3.0),
    ("ddpm", 30, 3.0),
    ("dpmpp_2m", 15, 1.0),
    ("ddpm", 30, 1.0),
)


@dataclass(frozen=True)
class Row:
    """One method in one cell; time and memory are ratios to plain sampling."""

    spearman: Interval
    partial: Interval
    pearson: Interval
    std_ratio: float
    image_rank: float
    cost: float = 0.0
    seconds_ratio: float = 1.0
    memory_ratio: float = 1.0


def methods(quick: bool) -> dict[str, Method]:
    """The methods under test, by the name of their row."""
    table: dict[str, Method] = dict(PRESETS)
    if quick:
        return table
    table |= {f"ensemble M={m}": Ensemble(m, seed=77) for m in (2, 3, 5, 10)}
    table |= {"bayesdiff S=10": BayesDiff(10), "bayesdiff S=10, skip 5": BayesDiff(10, 5)}
    return table


def measure(
    cell: Cell, table: dict[str, Method], truth: Truth, memory: bool = True
) -> dict[str, Row]:
    """Every method and every free baseline against the truth of one cell."""
    cell.setting.process().sample()
    plain_memory = memory_of(cell.setting, None) if memory else 0
    rows = {}
    for name, method in table.items():
        # Timed anew beside every method, since other work on the machine comes and goes.
        plain = sum(timed(batch.process().sample)[1] for batch in cell.batches)
        try:
            maps, cost, seconds = run(method, cell)
        except UnsupportedSolverError:
            continue
        ratio = memory_of(cell.setting, method) / plain_memory if memory else float("nan")
        rows[name] = compare(
            maps, truth, cost=cost, seconds_ratio=seconds / plain, memory_ratio=ratio
        )
    batches = [baseline_maps(batch.process()) for batch in cell.batches]
    for name in batches[0]:
        maps = torch.cat([free[name] for free in batches])
        extra = 1.0 if name == "noise shift" else 0.0
        costs = {"cost": extra, "seconds_ratio": 1.0 + extra}
        rows[name] = replace(compare(maps, truth, **costs), std_ratio=float("nan"))
    return rows


def run(method: Method, cell: Cell) -> tuple[Tensor, float, float]:
    """Std maps (B, H, W) of all batches, extra evaluations per step, and seconds."""
    maps, seconds, cost = [], 0.0, 0.0
    for setting in cell.batches:
        seeded: Any = replace(method, seed=method.seed + setting.seed)  # type: ignore[type-var, attr-defined]
        result, elapsed = timed(lambda s=setting, m=seeded: m.sample(s.process(), s.posterior))
        maps.append(per_pixel_std(result.variance))
        seconds += elapsed
        cost = result.cost / setting.steps
    return torch.cat(maps), cost, seconds


def memory_of(setting: Setting, method: Method | None) -> int:
    """Peak bytes of sampling four images; the number of steps hardly matters."""
    small = replace(setting, count=4)
    if method is None:
        return peak_bytes(small.process().sample)
    return peak_bytes(lambda: method.sample(small.process(), small.posterior))


def timed(work):  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def compare(values: Tensor, truth: Truth, **costs: float) -> Row:
    """Figures of a map (B, H, W) of every image."""
    std = truth.std
    ratio = (values.flatten(1) / std.flatten(1).clamp(min=1e-12)).median(1).values.mean()
    rank = spearman(values.flatten(1).mean(1)[None], std.flatten(1).mean(1)[None])
    return Row(
        spearman=bootstrap(spearman(values, std)),
        partial=bootstrap(partial_spearman(values, std, truth.images)),
        pearson=bootstrap(pearson(values, std)),
        std_ratio=ratio.item(),
        image_rank=rank.item(),
        **costs,
    )


def print_table(cell: Cell, truth: Truth, rows: dict[str, Row]) -> None:
    ceiling, partial = truth.ceilings
    print(f"\n{cell.setting}: {cell.images} images; ceiling {ceiling:.3f}, partial {partial:.3f}")
    print(
        f"{'method':<26} {'cost':>6} {'time':>6} {'memory':>6} {'spearman':>22} {'partial':>24} "
        f"{'pearson':>8} {'ratio':>6} {'rank':>6}"
    )
    for name, row in rows.items():
        ratio = f"{row.std_ratio:6.2f}" if row.std_ratio == row.std_ratio else "     -"
        print(
            f"{name:<26} {row.cost:6.2f} {row.seconds_ratio:6.2f} {row.memory_ratio:6.1f} "
            f"{row.spearman!s:>22} {row.partial!s:>24} {row.pearson.mean:8.3f} {ratio} "
            f"{row.image_rank:6.2f}",
            flush=True,
        )


def summary(results: dict[str, list[dict[str, Row]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means over the cells of a model, in the benchmark's JSON form."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for model, cells in results.items():
        names = dict.fromkeys(name for rows in cells for name in rows)
        out[model] = {}
        for name in names:
            found = [rows[name] for rows in cells if name in rows]
            figures = {
                "spearman": [row.spearman.mean for row in found],
                "partial": [row.partial.mean for row in found],
                "std_ratio": [row.std_ratio for row in found],
                "cost": [row.cost for row in found],
            }
            means = {key: sum(v) / len(v) for key, v in figures.items()}
            out[model][name] = {
                key: None if value != value else round(value, 4) for key, value in means.items()
            }
    return out


def cells_for(model: str, quick: bool, images: int, batches: int) -> list[Cell]:
    """The cells of a model; seeds differ between all batches of all cells."""
    if quick:
        return [Cell((Setting(model, "ddim", 12, 1.5 if model == "digits" else 3.0, images),))]
    return [
        Cell(
            tuple(
                Setting(model, *point, images, 1000 + index * 10 + batch)
                for batch in range(batches)
            )
        )
        for index, point in enumerate(GRID)
    ]


def as_json(cell: Cell, truth: Truth, rows: dict[str, Row]) -> dict[str, Any]:
    ceiling, partial_ceiling = truth.ceilings
    setting = asdict(cell.setting) | {"count": cell.images, "batches": len(cell.batches)}
    return {
        "setting": setting,
        "ceiling": ceiling,
        "partial_ceiling": partial_ceiling,
        "rows": {name: asdict(row) for name, row in rows.items()},
    }


def main() -> None:
    parser = command_line(
        "fidelity",
        __doc__,
        quick="one cell per model, M = 16, no memory",
        output="folder for one JSON file per model",
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--members", type=int, help="members of the truth (64; quick: 16)")
    parser.add_argument("--images", type=int, help="images per batch (8; quick: 3)")
    parser.add_argument("--batches", type=int, default=2, help="batches per cell (2; quick: 1)")
    parser.add_argument("--cells", type=int, nargs="+", help="which cells of the grid, from 0")
    arguments = parser.parse_args()
    members = arguments.members or (16 if arguments.quick else 64)
    images = arguments.images or (3 if arguments.quick else 8)
    results: dict[str, list[dict[str, Row]]] = {}
    for model in arguments.models:
        cells = cells_for(model, arguments.quick, images, arguments.batches)
        details = []
        for index, cell in enumerate(cells):
            if arguments.cells is not None and index not in arguments.cells:
                continue
            truth = truth_for(cell, members)
            rows = measure(cell, methods(arguments.quick), truth, memory=not arguments.quick)
            print_table(cell, truth, rows)
            results.setdefault(model, []).append(rows)
            details.append(as_json(cell, truth, rows))
            if arguments.output:
                write_json(arguments.output / f"{model}.json", details)
    print(json.dumps({"benchmark": "fidelity", "models": summary(results)}))
