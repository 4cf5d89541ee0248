"""Overhead: wall time of recording and of the presets over that of plain sampling.

    python -m benchmarks.overhead [--quick] [--model digits]

`tap_ratio` is a run that records its trajectory and the free signal, `tangent_ratio` one that also
carries uncertainty with the `balanced` preset. Runs are interleaved and the median is taken, so
that a busy machine disturbs both sides alike. The last line is JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

from bayesdiff_core.methods import PRESETS
from bayesdiff_core.recording import Recorder
from bayesdiff_core.signals import TrajectoryVariance

from .experiment import command_line
from .models import Setting

__all__ = ["main"]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = command_line("overhead", __doc__, quick="3 repetitions of 4 images")
    parser.add_argument("--model", default="digits")
    arguments = parser.parse_args()
    repetitions, count = (3, 4) if arguments.quick else (9, 16)
    setting = Setting(arguments.model, "ddim", 30, 3.0, count)
    posterior = setting.posterior

    def plain() -> None:
        setting.process().sample()

    def tapped() -> None:
        observers = (TrajectoryVariance(setting.steps), Recorder(setting.steps))
        process = setting.process(observers)
        observers[1].finish(process.sample(), process.sigmas)

    def preset(name: str) -> Callable[[], object]:
        return lambda: PRESETS[name].sample(setting.process(), posterior)

    variants = {"plain": plain, "tapped": tapped} | {name: preset(name) for name in PRESETS}
    for work in variants.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repetitions):
        for name, work in variants.items():
            times[name].append(seconds(work))
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times["plain"], strict=True))
        for name in variants
    }
    print(f"{setting}: {count} images, median of {repetitions} interleaved runs")
    for name, ratio in ratios.items():
        print(f"{name:<10} {ratio:6.3f}")
    print(
        json.dumps(
            {
                "benchmark": "overhead",
                "tap_ratio": round(ratios["tapped"], 4),
                "tangent_ratio": round(ratios["balanced"], 4),
            }
        )
    )


if __name__ == "__main__":
    main()
