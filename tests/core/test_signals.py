"""Trajectory and contrast measure what they say."""

import pytest
import torch

from bayesdiff_core.recording import Recorder
from bayesdiff_core.running_moments import RunningMoments
from bayesdiff_core.signals import (
    SHORTEST,
    Contrast,
    TrajectoryVariance,
    artifact,
    contrast,
    late_evaluations,
    smooth,
    trajectory_variance,
)
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas
from tests.core.linear import LinearDenoiser


def renoise(sigma, noise, x0):
    return (1 - sigma) * x0 + sigma * noise


def test_trajectory_is_the_variance_of_the_late_predictions():
    denoiser = LinearDenoiser(2, 6, torch.ones(36, 1))
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    trajectory, recorder = TrajectoryVariance(12), Recorder(12)
    solver = ReferenceSolver(ddim, flow_sigmas(12))
    process = SolverRun(solver, denoiser, x, observers=[trajectory, recorder])
    recording = recorder.finish(process.sample(), process.sigmas)
    late = recording.denoised[4:]
    torch.testing.assert_close(trajectory.map(), late.var(0).mean(1))
    torch.testing.assert_close(trajectory_variance(late), late.var(0).mean(1))


@pytest.mark.parametrize("evaluations", [*range(1, 31), 50, 59])
def test_late_is_two_thirds_of_every_run_in_whole_evaluations(evaluations):
    late = late_evaluations(evaluations)
    assert late.stop == evaluations
    assert len(late) == pytest.approx(2 * evaluations / 3, abs=0.5)


@pytest.mark.parametrize("evaluations", [1, 2, 3, 10, 15, 19, 28, 30])
def test_what_observes_a_run_and_what_reads_its_recording_agree(evaluations):
    """Where the product and the benchmarks once took other thirds, and where they failed."""
    denoised = torch.randn(
        evaluations, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)
    ).double()
    trajectory, afterwards = TrajectoryVariance(evaluations), TrajectoryVariance(None)
    for k, prediction in enumerate(denoised):
        trajectory.observe(k, prediction, torch.tensor(0.5), prediction)
        afterwards.observe(k, prediction, torch.tensor(0.5), prediction)
    assert torch.equal(afterwards.map(), trajectory.map())
    late = late_evaluations(evaluations)
    torch.testing.assert_close(trajectory.map(), trajectory_variance(denoised[late.start :]))
    assert trajectory.map().any() == (evaluations >= SHORTEST)


def test_welford_is_the_unbiased_variance():
    values = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0)) + 100
    moments = RunningMoments()
    for value in values:
        moments.add(value)
    torch.testing.assert_close(moments.variance(), values.var(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moments.mean, values.mean(0))


def test_contrast_is_high_exactly_where_the_prompt_explains_less():
    x0 = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    wrong = torch.zeros_like(x0)
    wrong[..., :8] = 1.0
    conditional = lambda z, _sigma: x0.expand_as(z) + wrong  # noqa: E731
    unconditional = lambda z, _sigma: x0.expand_as(z) + 0.5  # noqa: E731
    levels = {0.3: torch.tensor(0.3), 0.6: torch.tensor(0.6)}
    generator = torch.Generator().manual_seed(1)
    found = contrast(conditional, unconditional, x0, renoise, levels, generator, radius=0).map
    weight = (1 / 0.3 + 1 / 0.6) / 2
    torch.testing.assert_close(found[..., :8], torch.full((1, 16, 8), weight * (1 - 0.25)))
    torch.testing.assert_close(found[..., 8:], torch.full((1, 16, 8), weight * -0.25))


def test_contrast_is_repeatable_and_zero_without_a_condition():
    x0 = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    same = lambda z, sigma: z * (1 - sigma)  # noqa: E731
    levels = {0.4: torch.tensor(0.4)}
    found = contrast(same, same, x0, renoise, levels, torch.Generator().manual_seed(3))
    assert not found.map.any()
    expected = (same(renoise(0.4, noise_of(3, x0), x0), 0.4) - x0).square().mean((1, 2, 3)) / 0.4
    torch.testing.assert_close(found.error, expected)


def noise_of(seed, like):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def test_artifact_is_contrast_and_what_stayed_undecided_in_the_same_unit():
    """Twice the latents: four times the contrast, the error, the trajectory, and the artifact."""
    found = Contrast(torch.randn(2, 5, 5), torch.rand(2) + 0.1)
    trajectory = torch.rand(2, 5, 5)
    first = artifact(found, trajectory)
    larger = artifact(Contrast(4 * found.map, 4 * found.error), 4 * trajectory)
    torch.testing.assert_close(larger, 4 * first)
    torch.testing.assert_close(artifact(found, torch.zeros(2, 5, 5)), found.map)
    more = trajectory.clone()
    more[0, 2, 3] += 1
    risen = artifact(found, more) - first
    assert risen[0, 2, 3] > 0
    assert risen.count_nonzero() == 1


def test_smoothing_keeps_constants_and_mass_inside():
    maps = torch.full((2, 9, 7), 3.0)
    torch.testing.assert_close(smooth(maps, 2), maps)
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 1
    assert smooth(point, 1).sum() == 1
    assert torch.equal(smooth(point, 0), point)
