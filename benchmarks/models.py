"""Bundled models with their posteriors, and the settings in which benchmarks sample them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from bayesdiff_core.flow_matching import FlowDenoiser, FlowModel
from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.solver_run import Observer, ReferenceSolver, SolverRun
from bayesdiff_core.solvers import SAMPLERS, flow_sigmas
from demo.bundle import load_model

__all__ = ["BenchmarkModel", "Setting", "benchmark_model", "load_benchmark_model"]

FIT_IMAGES = 256


@dataclass(frozen=True)
class BenchmarkModel:
    """A bundled model with a posterior fitted on samples of its own."""

    name: str
    flow: FlowModel
    posterior: LaplacePosterior
    shape: tuple[int, ...]
    label_count: int
    classes: int
    shift: float
    """Of the noise schedule the model is sampled with."""

    def labels(self, count: int, seed: int) -> Tensor:
        """Random labels (count, L)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.classes, (count, self.label_count), generator=generator)

    def denoiser(self, labels: Tensor, guidance_scale: float) -> FlowDenoiser:
        null = torch.full_like(labels, self.classes)
        return FlowDenoiser(self.flow, labels, null, guidance_scale)


@dataclass(frozen=True)
class Setting:
    """`count` images of `model` by `sampler` in `steps` steps at `guidance_scale`."""

    model: str
    sampler: str
    steps: int
    guidance_scale: float
    count: int
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.model}, {self.sampler} {self.steps}, cfg {self.guidance_scale:g}"

    def process(self, observers: tuple[Observer, ...] = ()) -> SolverRun:
        """A fresh process: the same initial noise, labels and solver noise every time."""
        model = load_benchmark_model(self.model)
        generator = torch.Generator().manual_seed(1000 + self.seed)
        x = torch.randn(self.count, *model.shape, generator=generator)
        labels = model.labels(self.count, self.seed)
        solver = ReferenceSolver(
            SAMPLERS[self.sampler],
            flow_sigmas(self.steps, model.shift),
            name=self.sampler,
            noise=lambda: torch.randn(x.shape, generator=generator),
        )
        denoiser = model.denoiser(labels, self.guidance_scale)
        return SolverRun(solver, denoiser, x, observers=observers)

    @property
    def posterior(self) -> LaplacePosterior:
        return load_benchmark_model(self.model).posterior


@lru_cache
def load_benchmark_model(name: str) -> BenchmarkModel:
    """Load a bundled model and fit its posterior, which takes some seconds."""
    network, config = load_model(name)
    labels = torch.zeros(1, config.n_labels, dtype=torch.long)
    flow = FlowModel(network, config.sample_shape, labels)
    sums = flow.fit(own_samples(flow, config), torch.Generator().manual_seed(0), draws=4)
    return BenchmarkModel(
        name,
        flow,
        flow.posterior(sums),
        config.sample_shape,
        config.n_labels,
        config.null_label,
        config.shift,
    )


@lru_cache
def benchmark_model(name: str) -> BenchmarkModel:
    """The same model with its weights laid out as a CPU's convolutions like them.

    That takes a sixth off the time; every later use of the model in this process shares it.
    """
    model = load_benchmark_model(name)
    model.flow.network.to(memory_format=torch.channels_last)
    return model


def own_samples(flow: FlowModel, config) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[no-untyped-def]
    """Samples of the model itself with their labels, in batches: no data set is needed."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(FIT_IMAGES // 64):
        labels = torch.randint(config.null_label, (64, config.n_labels), generator=generator)
        x = torch.randn(64, *config.sample_shape, generator=generator)
        denoiser = FlowDenoiser(flow, labels)
        solver = ReferenceSolver(SAMPLERS["ddim"], flow_sigmas(20, config.shift))
        process = SolverRun(solver, denoiser, x)
        yield process.sample(), labels
