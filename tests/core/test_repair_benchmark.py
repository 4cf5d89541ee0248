"""The repair benchmark's own parts: regions judged one by one, and equal costs."""

import pytest
import torch

from bayesdiff_core.flow_matching import renoise
from bayesdiff_core.recording import Recorder
from bayesdiff_core.resample.masked_run import MaskedRun
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas
from benchmarks.models import Setting
from benchmarks.recorded_runs import STEPS as RUN
from benchmarks.recorded_runs import Scenes
from benchmarks.repair.cases import InsideMask, join, quadrant_case
from benchmarks.repair.loop import CONTRAST_COST, Loop, insert
from benchmarks.repair.loop_figures import Anew
from benchmarks.repair.run import Outcomes
from tests.core.linear import LinearDenoiser

STEPS = 8


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def recorded(batch=2, seed=0):
    denoiser = LinearDenoiser(2, 6, torch.ones(36, 1))
    recorder = Recorder(STEPS)
    solver = ReferenceSolver(ddim, flow_sigmas(STEPS))
    process = SolverRun(solver, denoiser, randn(batch, 2, 6, 6, seed=seed), observers=[recorder])
    return denoiser, recorder.finish(process.sample(), process.sigmas)


def test_quadrants_keep_their_place_when_cases_are_joined():
    _, recording = recorded(batch=3)
    scenes = Scenes(
        Setting("digits", "ddim", STEPS, 1.0, 3), recording, torch.arange(12).view(3, 4)
    )
    index = torch.tensor([[0, 1], [2, 2]])
    both = join([quadrant_case(scenes, index), quadrant_case(scenes, index.flip(0))])
    assert both.quadrant.tolist() == [1, 2, 2, 1]
    torch.testing.assert_close(both.recording.final, recording.final[[0, 2, 2, 0]])
    assert both.masks[0, 0].nonzero().amin(0).tolist() == [0, 3]
    assert both.masks[1, 0].nonzero().amin(0).tolist() == [3, 0]
    assert (both.masks.sum((1, 2, 3)) == 9).all()


def test_a_denoiser_inside_the_mask_is_the_masked_run():
    denoiser, recording = recorded()
    mask = torch.zeros(2, 1, 6, 6)
    mask[..., :3] = 1
    run = MaskedRun(recording, mask, 0.5, copies=3)
    start = run.around(run.prediction, renoise, randn(6, 2, 6, 6, seed=1))
    solver = ReferenceSolver(ddim, run.sigmas)
    plain = SolverRun(solver, denoiser, start)
    inside = SolverRun(solver, InsideMask(denoiser, run, run.sigmas), start)
    expected = plain.sample(run.evaluate(plain.denoise))
    assert torch.equal(inside.sample(), expected)


def test_only_scenes_that_got_better_replace_others():
    _, into = recorded(batch=3)
    _, new = recorded(batch=2, seed=5)
    kept = insert(into, new, torch.tensor([2]), torch.tensor([False, True]))
    assert torch.equal(kept.final[:2], into.final[:2])
    assert torch.equal(kept.final[2], new.final[1])
    assert torch.equal(kept.states[:, 2], new.states[:, 1])


def test_masks_follow_the_rule():
    maps = torch.zeros(2, 32, 32)
    maps[0, 4:10, 4:10] = 1.0
    maps[1, 4:6, 4:6] = 1.0
    masks = Loop(threshold=0.5, grow=2.0, minimum_area=26).masks(maps)
    assert masks[0, 2, 6] == 1 and masks[0, 1, 6] == 0
    assert not masks[1].any(), "too small a region"


def outcomes():
    return Outcomes(
        right=torch.tensor([[0, 1], [1, 0], [1, 1]]).bool(),
        before=torch.tensor([False, True]),
        scores={"contrast": torch.tensor([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]])},
        original={"contrast": torch.tensor([2.5, 0.5])},
        outside=0.0,
    )


def test_fewer_candidates_are_the_first_of_many():
    found = outcomes()
    assert found.after("contrast", 1, keep=False).tolist() == [False, True]
    assert found.after("contrast", 2, keep=False).tolist() == [True, False]
    assert found.after("contrast", 3, keep=False).tolist() == [True, True]
    assert found.after("oracle", 2, keep=False).tolist() == [True, True]


def test_the_original_stays_where_it_has_the_lowest_score():
    found = outcomes()
    assert found.after("contrast", 2, keep=True).tolist() == [True, True]
    assert found.after("contrast", 1, keep=True).tolist() == [False, True]


def test_sampling_anew_spends_what_it_is_given():
    """Verdicts mix two counts of samples in the ratio that meets the cost."""
    scores = torch.tensor([[3.0, 3.0], [2.0, 4.0], [1.0, 1.0]])
    right = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    anew = Anew(scores, right, torch.tensor([True, False]))
    half = (RUN + CONTRAST_COST) / 2
    assert anew.at_cost(0.0, adaptive=False).tolist() == [0.0, 1.0]
    assert anew.at_cost(half, adaptive=False).tolist() == pytest.approx([0.5, 1.0])
    # One scene of two is flagged, so that the same cost buys it twice as many samples.
    assert anew.at_cost(half, adaptive=True).tolist() == pytest.approx([1.0, 1.0])
    assert anew.at_cost(1000.0, adaptive=False) is None
