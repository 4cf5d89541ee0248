"""Peak memory of a piece of work, and what a last layer of SDXL's size asks for.

    python -m benchmarks.memory [--quick]

A network that is little more than SDXL's last layer (a 3x3 convolution of 320 channels at 128 x
128 positions) is evaluated once with guidance: plainly, and with what each method does to the
features of one evaluation. Weights and posterior are of no account. The last line is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from bayesdiff_core.flow_matching import FlowDenoiser, FlowModel
from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.methods import PRESETS, BayesDiff
from bayesdiff_core.methods.base import Record
from bayesdiff_core.methods.bayesdiff import Recursion, single_steps
from bayesdiff_core.methods.tangent import TangentRun
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas

from .experiment import command_line

__all__ = ["main", "peak_bytes"]

CHANNELS, SIZE = 320, 128


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes that `work` held on the CPU at one time beyond what was there when it began."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held, peak = 0, 0
    results = profiler.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


class LastLayerOnly(nn.Module):
    """A network that does nothing before its last layer but fill the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, CHANNELS, 1)
        self.out = nn.Conv2d(CHANNELS, 4, 3, padding=1)

    def forward(self, x: Tensor, _t: Tensor, _y: Tensor) -> Tensor:
        return self.out(functional.silu(self.first(x)))


def first_refresh(run: TangentRun, x: Tensor, sigma: Tensor) -> None:
    """One evaluation with all that the tangents take from it."""
    run.refresh(0, Record(x, sigma, run.run.denoiser.record(x, sigma)[1]))


def measure(batch: int) -> dict[str, float]:
    """Peak MB per image of one guided evaluation of `batch` images, and of a fit's."""
    labels = torch.zeros(batch, 1, dtype=torch.long)
    model = FlowModel(LastLayerOnly().requires_grad_(False), (4, SIZE, SIZE), labels)
    posterior = LaplacePosterior(torch.eye(model.weights.shape[1]), 1.0, 1.0, rows=4, positions=1)
    posterior.factor("cpu")
    denoiser = FlowDenoiser(model, labels, labels, 3.0)
    x, sigmas = torch.randn(batch, 4, SIZE, SIZE), flow_sigmas(30)
    process = SolverRun(ReferenceSolver(ddim, sigmas, name="ddim"), denoiser, x)
    runs = {
        name: TangentRun(process, posterior, preset.plan(30, 4))
        for name, preset in PRESETS.items()
    }
    published = Recursion(BayesDiff(), process, posterior, single_steps(process.trace, "ddim"))
    works: dict[str, Callable[[], object]] = {
        "plain": lambda: denoiser.predict(x, sigmas[0]),
        **{name: partial(first_refresh, run, x, sigmas[0]) for name, run in runs.items()},
        "bayesdiff": lambda: published.evaluate(0, x, sigmas[0]),
        "fit": lambda: model.fit(iter([(x, labels)]), torch.Generator().manual_seed(0)),
    }
    return {name: round(peak_bytes(work) / batch / 1e6, 1) for name, work in works.items()}


def main() -> None:
    parser = command_line("memory", __doc__, quick="one image only")
    torch.manual_seed(0)
    batches = (1,) if parser.parse_args().quick else (1, 4)
    unfolded = 4 * SIZE**2 * (9 * CHANNELS + 1) / 1e6
    print(f"Peak MB per image; unfolded, its features alone would be {unfolded:.0f} MB")
    peaks = {batch: measure(batch) for batch in batches}
    print(f"{'images':<8}" + "".join(f"{name:>11}" for name in peaks[1]))
    for batch, row in peaks.items():
        print(f"{batch:<8}" + "".join(f"{peak:11.0f}" for peak in row.values()))
    result = {"benchmark": "memory", "unfolded_mb": round(unfolded, 1), "peak_mb": peaks}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
