"""Find, mask, repair, keep or not: the whole loop without an oracle, and what it has to beat.

The cost of everything is counted in guided evaluations per scene; at cfg 1 every call of
contrast counts as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from bayesdiff_core.flow_matching import FlowDenoiser
from bayesdiff_core.ranking import pool
from bayesdiff_core.recording import Recording, splice
from bayesdiff_core.resample.region_choice import choose_regions
from bayesdiff_core.resample.regions import region_labels
from bayesdiff_core.resample.rules import RULES
from bayesdiff_core.sample import UncertaintyOptions, sample_with_uncertainty
from bayesdiff_core.segments import Selection
from bayesdiff_core.signals import (
    CONTRAST_LEVELS,
    artifact,
    late_evaluations,
    trajectory_variance,
)
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas

from ..models import benchmark_model
from ..recorded_runs import STEPS, Scenes
from .cases import Case, sample_again

__all__ = ["CONTRAST_COST", "Loop", "State", "begin", "insert", "one_round", "sample_anew"]

CONTRAST_COST = 2 * len(CONTRAST_LEVELS)


@dataclass(frozen=True)
class Loop:
    """The fixed rule of the loop.

    Pixels above `threshold`, in regions of at least `minimum_area` pixels, grown by `grow`;
    `candidates` of the last share `denoise` of the schedule, the original kept where none has a
    lower mean of `artifact` in the region.
    """

    threshold: float
    grow: float
    minimum_area: int = 12
    denoise: float = 0.7
    candidates: int = 4

    def masks(self, maps: Tensor) -> Tensor:
        """(B, H, W), 1 where maps (B, H, W) call for repair."""
        selection = Selection(None, self.threshold, self.grow, self.minimum_area)
        return selection.regions(maps, selection.thresholds(maps))


@dataclass(frozen=True)
class State:
    """Scenes during the loop: recording, artifact map (B, H, W), and cost (B,) so far.

    `active` (B,) says which scenes may still be repaired.
    """

    model: str
    recording: Recording
    labels: Tensor
    map: Tensor
    cost: Tensor
    active: Tensor

    @property
    def score(self) -> Tensor:
        """`artifact` of the whole picture (B,), as the product ranks it."""
        return pool(self.map, "top10")


def begin(scenes: Scenes, loop: Loop) -> State:
    """Sampled and looked at."""
    size = len(scenes.labels)
    return State(
        scenes.setting.model,
        scenes.recording,
        scenes.labels,
        artifact_of(scenes.denoiser, scenes.recording),
        torch.full((size,), float(STEPS + CONTRAST_COST)),
        torch.ones(size, dtype=torch.bool),
    )


def one_round(state: State, loop: Loop, seed: int) -> tuple[State, Tensor]:
    """The state after repairing every region found, and the masks (B, H, W) of this round."""
    masks = loop.masks(state.map) * state.active[:, None, None]
    index = masks.flatten(1).any(1).nonzero()[:, 0]
    active = torch.zeros_like(state.active)
    if not len(index):
        return replace(state, active=active), masks
    case = Case(
        state.model, state.recording.select(index), state.labels[index], masks[index][:, None]
    )
    found = sample_again(case, loop.denoise, loop.candidates, seed)
    denoiser = case.denoiser()
    choice = choose_regions(
        found, case.masks, region_labels(case.masks), RULES["artifact"],
        contrast_of=partial(denoiser.contrast, seed=0),
    )  # fmt: skip
    recording = splice(case.recording, found.recording, case.masks, choice.takes)
    after = artifact_of(denoiser, recording)
    # Artifact looks at the scene as a whole: what was better region by region may be worse in sum.
    better = pool(after, "top10") < state.score[index]
    active[index[better]] = True
    cost = state.cost.clone()
    steps = len(found.recording.denoised)
    cost[index] += loop.candidates * (steps + CONTRAST_COST) + CONTRAST_COST
    maps = state.map.clone()
    maps[index[better]] = after[better]
    kept = insert(state.recording, recording, index[better], better)
    return replace(state, recording=kept, map=maps, cost=cost, active=active), masks


def insert(into: Recording, new: Recording, index: Tensor, keep: Tensor) -> Recording:
    """`into` with the scenes `index` replaced by the scenes `keep` of `new`."""
    states, denoised, final = into.states.clone(), into.denoised.clone(), into.final.clone()
    states[:, index] = new.states[:, keep]
    denoised[:, index] = new.denoised[:, keep]
    final[index] = new.final[keep]
    return Recording(states, denoised, into.sigmas, into.schedule, final)


def sample_anew(model: str, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Fresh scenes (B, C, H, W) for the same labels, and their `artifact` scores (B,)."""
    found = benchmark_model(model)
    denoiser = found.denoiser(labels, 1.0)
    x = torch.randn(len(labels), *found.shape, generator=torch.Generator().manual_seed(seed))
    solver = ReferenceSolver(ddim, flow_sigmas(STEPS, found.shift))
    latent, uncertainty = sample_with_uncertainty(
        SolverRun(solver, denoiser, x),
        UncertaintyOptions(),
        contrast_of=partial(denoiser.contrast, seed=0),
    )
    return latent, uncertainty.signal("artifact").scores


def artifact_of(denoiser: FlowDenoiser, recording: Recording) -> Tensor:
    """Artifact (B, H, W) of a whole recorded run."""
    late = late_evaluations(len(recording.denoised))
    trajectory = trajectory_variance(recording.denoised[late.start :])
    return artifact(denoiser.contrast(recording.final, seed=0), trajectory)
