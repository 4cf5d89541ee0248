"""Write docs/benchmarks.md and its picture from what the benchmark measured.

    python -m benchmarks.fidelity.report docs/fidelity/*.json

Takes the files that `benchmarks.fidelity --output` wrote. The text around the tables lives in
docs/benchmarks.md itself: only what stands between the two marks is replaced.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ..experiment import DOCS, command_line, markdown_table, replace_blocks
from ..metrics import Interval

__all__ = ["picture", "tables"]

PRESETS = ("fast", "balanced", "accurate")
RATIOS = ("std ratio", "image rank")

Measured = list[dict[str, Any]]


def tables(measured: Measured) -> str:
    """The summary, then one Markdown table per cell."""
    return "\n\n".join([summary(measured), *(table(cell) for cell in measured)])


def summary(measured: Measured) -> str:
    """Means over the cells of a model: the presets, and what they have to beat."""
    lines = []
    for model, cells in by_model(measured).items():
        ceiling = mean(cell["partial_ceiling"] for cell in cells)
        names = [*PRESETS, "ensemble M=3", "ensemble M=10", best_free(cells)]
        for name in names:
            rows = [cell["rows"][name] for cell in cells if name in cell["rows"]]
            cost, ratio, rank = (
                number(mean(row[key] for row in rows))
                for key in ("cost", "std_ratio", "image_rank")
            )
            spearman, partial = (
                mean(row[key]["mean"] for row in rows) for key in ("spearman", "partial")
            )
            share = f"{partial:.3f} ({partial / ceiling:.0%})"
            lines.append([model, name, cost, f"{spearman:.3f}", share, ratio, rank])
    heads = "model", "method", "extra cost", "Spearman", "partial Spearman", *RATIOS
    return (
        "### Means over the cells of each model\n\n"
        "Beside the partial Spearman: its share of the ceiling.\n\n" + markdown_table(heads, lines)
    )


def by_model(measured: Measured) -> dict[str, Measured]:
    cells: dict[str, Measured] = defaultdict(list)
    for cell in measured:
        cells[cell["setting"]["model"]].append(cell)
    return cells


def best_free(cells: Measured) -> str:
    """The baseline without cost that has the highest partial Spearman on average."""
    free = [name for name, row in cells[0]["rows"].items() if row["cost"] == 0]
    return max(
        free, key=lambda name: mean(cell["rows"][name]["partial"]["mean"] for cell in cells)
    )


def table(cell: dict[str, Any]) -> str:
    """Every method in one cell."""
    setting = cell["setting"]
    lines = []
    for name, row in cell["rows"].items():
        cost, seconds, memory, ratio, rank = (
            number(row[key])
            for key in ("cost", "seconds_ratio", "memory_ratio", "std_ratio", "image_rank")
        )
        agreement = [str(Interval(**row[key])) for key in ("spearman", "partial")]
        agreement.append(f"{row['pearson']['mean']:.3f}")
        lines.append([name, cost, seconds, memory, *agreement, ratio, rank])
    costs = "extra cost", "time", "memory"
    heads = "method", *costs, "Spearman", "partial Spearman", "Pearson", *RATIOS
    return (
        f"### {title(setting)}\n\n"
        f"{setting['count']} images in {setting['batches']} batches. Ceiling: Spearman "
        f"{cell['ceiling']:.3f}, partial {cell['partial_ceiling']:.3f}.\n\n"
        + markdown_table(heads, lines)
    )


def title(setting: dict[str, Any]) -> str:
    return (
        f"{setting['model']}, {setting['sampler']} {setting['steps']}, "
        f"cfg {setting['guidance_scale']:g}"
    )


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def picture(measured: Measured, path: Path) -> None:
    """Cost against partial Spearman, every method, mean over the settings of a model."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    ceilings: dict[str, list[float]] = defaultdict(list)
    for cell in measured:
        model = cell["setting"]["model"]
        ceilings[model].append(cell["partial_ceiling"])
        for name, row in cell["rows"].items():
            points[model][name].append((row["cost"], row["partial"]["mean"]))
    figure, axes = plt.subplots(
        1, len(points), figsize=(5.2 * len(points), 4.2), sharey=True, squeeze=False
    )
    for axis, (model, methods) in zip(axes[0], points.items(), strict=True):
        means = {name: tuple(map(mean, zip(*found))) for name, found in methods.items()}
        free = max(p for cost, p in means.values() if cost == 0)
        families = {
            "tangent presets": list(PRESETS),
            "ensembles": [name for name in means if name.startswith("ensemble")],
            "published recursion": [name for name in means if name.startswith("bayesdiff")],
        }
        for label, names in families.items():
            xs, ys = zip(*[means[name] for name in names if name in means], strict=True)
            axis.plot(xs, ys, "o-", label=label, markersize=5)
        axis.axhline(free, color="0.6", linestyle="--", linewidth=1, label="best free baseline")
        axis.axhline(mean(ceilings[model]), color="0.8", linewidth=1, label="ceiling")
        axis.set(xscale="log", title=model, xlabel="extra guided evaluations per step")
        axis.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
        axis.minorticks_off()
        axis.set_ylim(0, 1)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("partial Spearman with brute force")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, frameon=False, fontsize=9, loc="lower center", ncols=len(labels)
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


def main() -> None:
    parser = command_line("fidelity.report", __doc__)
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    measured = [cell for path in arguments.files for cell in json.loads(path.read_text())]
    replace_blocks(DOCS / "benchmarks.md", {"tables": tables(measured)})
    picture(measured, DOCS / "images" / "fidelity.png")


if __name__ == "__main__":
    main()
