"""Find, mask, repair, keep or not: the whole loop without an oracle, and what it has to beat.

The cost of everything is counted in guided evaluations per scene; at cfg 1 every call of
contrast counts as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdiff_core.flow_matching import FlowDenoiser
from bayesdiff_core.ranking import pool
from bayesdiff_core.recording import Recorder, Recording
from bayesdiff_core.resample.region_choice import (
    compose,
    paint,
    pick_regions,
    region_labels,
    region_scores,
)
from bayesdiff_core.segments import Selection
from bayesdiff_core.signals import CONTRAST_LEVELS, late_evaluations
from bayesdiff_core.solver_run import SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas

from ..models import benchmark_model
from ..recorded_runs import STEPS, Scenes
from .cases import Case, look, sample_again

__all__ = ["CONTRAST_COST", "Loop", "State", "begin", "one_round", "sample_anew"]

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
    take = best_by_region(found.maps, state.map[index], masks[index])
    recording = composed(case.recording, found.run, take)
    after = artifact_of(case.denoiser(), recording)
    # Artifact looks at the scene as a whole: what was better region by region may be worse in sum.
    better = pool(after, "top10") < state.score[index]
    active[index[better]] = True
    cost = state.cost.clone()
    steps = len(found.run.denoised)
    cost[index] += loop.candidates * (steps + CONTRAST_COST) + CONTRAST_COST
    maps = state.map.clone()
    maps[index[better]] = after[better]
    kept = insert(state.recording, recording, index[better], better)
    return replace(state, recording=kept, map=maps, cost=cost, active=active), masks


def best_by_region(candidates: Tensor, original: Tensor, masks: Tensor) -> Tensor:
    """Which candidate (B, H, W) each pixel takes, -1 for the original.

    Every connected region is judged on its own: the lowest mean of maps (N, B, H, W) in it wins
    where it lies below that of the original map (B, H, W).
    """
    soft = masks[:, None]
    labels = region_labels(soft)
    scores = region_scores(candidates, soft, labels)
    return paint(pick_regions(scores, region_scores(original[None], soft, labels)[0]), labels)


def composed(before: Recording, run: Recording, take: Tensor) -> Recording:
    """The recording with each pixel's candidate (B, H, W) in it, from the step it began at."""
    first = len(before.denoised) - len(run.denoised)
    count = len(run.final) // len(before.final)

    def chosen(candidates: Tensor, recorded: Tensor) -> Tensor:
        """Of candidates (E, N * B, C, H, W) and what was recorded (E, B, C, H, W)."""
        stack = candidates.unflatten(1, (count, -1)).permute(1, 2, 0, 3, 4, 5)
        return compose(stack, recorded.movedim(1, 0), take).movedim(0, 1)

    states, denoised = before.states.clone(), before.denoised.clone()
    states[first:] = chosen(run.states, states[first:])
    denoised[first:] = chosen(run.denoised, denoised[first:])
    final = chosen(run.final[None], before.final[None])[0]
    return Recording(states, denoised, before.sigmas, before.schedule, final)


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
    recorder = Recorder(STEPS)
    process = SolverRun(ddim, denoiser, x, flow_sigmas(STEPS, found.shift), observers=[recorder])
    recording = recorder.finish(process.sample(), process.sigmas)
    assert recording is not None, recorder.note
    return recording.final, pool(artifact_of(denoiser, recording), "top10")


def artifact_of(denoiser: FlowDenoiser, recording: Recording) -> Tensor:
    """Artifact (B, H, W) of a whole recorded run."""
    late = late_evaluations(len(recording.denoised))
    return look(denoiser, recording.final, recording.denoised[late.start :])["artifact"]
