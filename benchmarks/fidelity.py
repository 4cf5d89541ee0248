"""How close each method comes to the true posterior spread, and what it costs.

    python -m benchmarks.fidelity [--quick] [--models digits emoji] [--members 64] [--images 32]

The truth is brute force: `--members` whole runs with weights from the posterior (T1). Every figure
is a mean over images with its 95% bootstrap interval. `partial` is the rank correlation once image
content is regressed out; a method that does not beat the free baselines there has found nothing.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.methods import PRESETS, BayesDiff, Ensemble, Method, UnsupportedSolverError
from bayesdiff_core.process import SolverProcess

from .baselines import free_maps
from .metrics import Interval, bootstrap, partial_spearman, pearson, spearman
from .setting import Setting, cached

__all__ = ["Row", "Truth", "measure", "methods", "truth_for"]


@dataclass(frozen=True)
class Truth:
    """Per-pixel std (B, H, W) of the Bayesian model average, in two independent halves."""

    halves: tuple[Tensor, Tensor]
    images: Tensor

    @property
    def std(self) -> Tensor:
        return ((self.halves[0].square() + self.halves[1].square()) / 2).sqrt()

    def ceiling(self, compare: Callable[[Tensor, Tensor], Tensor]) -> float:
        """Largest correlation a perfect method can show: the root of the truth's reliability.

        Split-half reliability r, corrected to full length by Spearman-Brown: 2 r / (1 + r).
        """
        half = compare(*self.halves).mean().clamp(min=0)
        return (2 * half / (1 + half)).sqrt().item()


@dataclass(frozen=True)
class Row:
    """One method in one setting."""

    spearman: Interval
    partial: Interval
    pearson: Interval
    std_ratio: float
    image_rank: float
    cost: float
    seconds_ratio: float


def methods(quick: bool) -> dict[str, Method]:
    """The methods under test, by the name of their row."""
    table: dict[str, Method] = dict(PRESETS)
    if quick:
        return table
    table |= {f"ensemble M={m}": Ensemble(m, seed=77) for m in (2, 3, 5, 10)}
    table |= {"bayesdiff S=10": BayesDiff(10), "bayesdiff S=10, skip 5": BayesDiff(10, 5)}
    return table


def truth_for(setting: Setting, members: int) -> Truth:
    """Two halves of `members` / 2 runs each, from the cache where they were computed before."""
    posterior = setting.posterior

    def compute() -> dict[str, Tensor]:
        process = setting.process()
        results = [Ensemble(members // 2, seed=s).sample(process, posterior) for s in (1, 2)]
        first, second = (per_pixel_std(result.variance) for result in results)
        return {"first": first, "second": second, "images": results[0].latent}

    identity = (setting, posterior.fingerprint, posterior.prior_precision, members)
    stored = cached(f"truth 1 {identity}", compute)
    return Truth((stored["first"], stored["second"]), stored["images"])


def per_pixel_std(variance: Tensor) -> Tensor:
    """Root mean square over channels: (B, C, H, W) to (B, H, W)."""
    return variance.mean(1).sqrt()


def measure(setting: Setting, table: dict[str, Method], truth: Truth) -> dict[str, Row]:
    """Every method and every free baseline against the truth of one setting."""
    posterior, rows = setting.posterior, {}
    free, _ = timed(lambda: free_maps(setting.process()))
    setting.process().sample()
    _, plain_seconds = timed(lambda: setting.process().sample())
    for name, method in table.items():
        try:
            result, seconds = timed(lambda m=method: run(m, setting.process(), posterior))
        except UnsupportedSolverError:
            continue
        cost = result.cost / setting.steps
        rows[name] = compare(per_pixel_std(result.variance), truth, cost, seconds / plain_seconds)
    for name, values in free.items():
        rows[name] = compare(values, truth, 0.0, 1.0, scaled=False)
    return rows


def run(method: Method, process: SolverProcess, posterior: LaplacePosterior):  # type: ignore[no-untyped-def]
    return method.sample(process, posterior)


def timed(work):  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def compare(
    values: Tensor, truth: Truth, cost: float, seconds_ratio: float, scaled: bool = True
) -> Row:
    """Figures of one map (B, H, W); `scaled` is False where its unit is not a std."""
    std = truth.std
    ratio = (values.flatten(1) / std.flatten(1).clamp(min=1e-12)).median(1).values.mean()
    rank = spearman(values.flatten(1).mean(1)[None], std.flatten(1).mean(1)[None])
    return Row(
        spearman=bootstrap(spearman(values, std)),
        partial=bootstrap(partial_spearman(values, std, truth.images)),
        pearson=bootstrap(pearson(values, std)),
        std_ratio=ratio.item() if scaled else float("nan"),
        image_rank=rank.item(),
        cost=cost,
        seconds_ratio=seconds_ratio,
    )


def print_table(setting: Setting, truth: Truth, rows: dict[str, Row]) -> None:
    ceiling = truth.ceiling(spearman)
    partial = truth.ceiling(lambda a, b: partial_spearman(a, b, truth.images))
    print(f"\n{setting}: {setting.count} images; ceiling {ceiling:.3f}, partial {partial:.3f}")
    print(
        f"{'method':<26} {'cost':>6} {'time':>6} {'spearman':>22} {'partial':>24} "
        f"{'pearson':>8} {'ratio':>6} {'rank':>6}"
    )
    for name, row in rows.items():
        ratio = f"{row.std_ratio:6.2f}" if row.std_ratio == row.std_ratio else "     -"
        print(
            f"{name:<26} {row.cost:6.2f} {row.seconds_ratio:6.2f} {row.spearman!s:>22} "
            f"{row.partial!s:>24} {row.pearson.mean:8.3f} {ratio} {row.image_rank:6.2f}",
            flush=True,
        )


def summary(results: dict[str, list[dict[str, Row]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means over the settings of a model, in the benchmark's JSON form."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for model, settings in results.items():
        names = dict.fromkeys(name for rows in settings for name in rows)
        out[model] = {}
        for name in names:
            found = [rows[name] for rows in settings if name in rows]
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


def settings_for(model: str, quick: bool, images: int) -> list[Setting]:
    if quick:
        return [Setting(model, "ddim", 15, 1.5 if model == "digits" else 3.0, images)]
    grid = [
        ("ddim", 30, 1.0),
        ("ddim", 30, 3.0),
        ("dpmpp_2m", 15, 3.0),
        ("ddpm", 30, 3.0),
        ("dpmpp_2m", 15, 1.0),
        ("ddpm", 30, 1.0),
    ]
    return [Setting(model, *cell, images, seed) for seed, cell in enumerate(grid)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one setting a model, M = 32")
    parser.add_argument("--models", nargs="+", default=["digits", "emoji"])
    parser.add_argument("--members", type=int, help="members of the truth (64; quick: 32)")
    parser.add_argument("--images", type=int, help="images a setting (32; quick: 6)")
    parser.add_argument("--output", type=Path, help="also write every figure to this JSON file")
    arguments = parser.parse_args()
    members = arguments.members or (32 if arguments.quick else 64)
    images = arguments.images or (6 if arguments.quick else 32)
    results: dict[str, list[dict[str, Row]]] = {}
    details = []
    for model in arguments.models:
        for setting in settings_for(model, arguments.quick, images):
            truth = truth_for(setting, members)
            rows = measure(setting, methods(arguments.quick), truth)
            print_table(setting, truth, rows)
            results.setdefault(model, []).append(rows)
            details.append(
                {
                    "setting": asdict(setting),
                    "ceiling": truth.ceiling(spearman),
                    "partial_ceiling": truth.ceiling(
                        lambda a, b, images=truth.images: partial_spearman(a, b, images)
                    ),
                    "rows": {name: asdict(row) for name, row in rows.items()},
                }
            )
            if arguments.output:
                arguments.output.write_text(json.dumps(details, indent=1))
    print(json.dumps({"benchmark": "fidelity", "models": summary(results)}))


if __name__ == "__main__":
    main()
