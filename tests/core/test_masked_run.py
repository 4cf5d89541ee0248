"""Sampling a region again leaves the rest alone, to the bit, and starts where it says."""

import pytest
import torch

from bayesdiff_core.methods.posterior_moves import (
    along_moves,
    independent_moves,
    posterior_moves,
)
from bayesdiff_core.methods.tangent import NU
from bayesdiff_core.recording import Recorder, last_part
from bayesdiff_core.resample.candidates import sample_candidates
from bayesdiff_core.resample.masked_run import MaskedRun, RenoisedRun
from bayesdiff_core.resample.noise_modes import NOISE_MODES, Start
from bayesdiff_core.resample.rules import choose_candidate
from bayesdiff_core.signals import late_evaluations, trajectory_variance
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import SAMPLERS, flow_sigmas
from bayesdiff_core.tiling import tile
from tests.core.linear import LinearDenoiser, unit_posterior

STEPS = 10


def renoise(sigma, noise, x0):
    return (1 - sigma) * x0 + sigma * noise


def record(name, budget_mb=64.0, batch=2):
    denoiser = LinearDenoiser(2, 6, torch.ones(36, 1))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 2, 6, 6, generator=generator)
    solver = ReferenceSolver(
        SAMPLERS[name], flow_sigmas(STEPS), name=name,
        noise=lambda: torch.randn(x.shape, generator=generator),
    )  # fmt: skip
    process = SolverRun(solver, denoiser, x)
    recorder = Recorder(process.trace.evaluations, budget_mb)
    process.observers.append(recorder)
    return process, recorder, recorder.finish(process.sample(), process.sigmas)


def run_again(process, masked, seed=1):
    shape = tile(process.x, masked.copies).shape
    generator = torch.Generator().manual_seed(seed)
    start = masked.around(masked.prediction, renoise, torch.randn(shape, generator=generator))
    solver = ReferenceSolver(
        process.solver.function,
        masked.sigmas,
        noise=lambda: torch.randn(shape, generator=generator),
    )
    again = SolverRun(solver, process.denoiser, start)
    return masked.finish(again.sample(masked.evaluate(again.denoise)))


def left_half(soft=False):
    mask = torch.zeros(2, 1, 6, 6)
    mask[..., :3] = 1
    if soft:
        mask[..., 3] = 0.5
    return mask


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("denoise", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("soft", [False, True])
def test_outside_the_mask_nothing_changes_to_the_bit(name, denoise, soft):
    process, _, recording = record(name)
    masked = MaskedRun(recording, left_half(soft), denoise, copies=3)
    result = run_again(process, masked).unflatten(0, (3, 2))
    outside = masked.mask.expand_as(recording.final) == 0
    for candidate in result:
        assert torch.equal(candidate[outside], recording.final[outside])
        assert not torch.equal(candidate, recording.final)


def test_candidates_differ_and_more_denoise_changes_more():
    process, _, recording = record("ddim")
    changes = []
    for denoise in (0.2, 0.5, 0.9):
        masked = MaskedRun(recording, left_half(), denoise, copies=2)
        first, second = run_again(process, masked).unflatten(0, (2, 2))
        assert not torch.equal(first, second)
        changes.append((first - recording.final).abs().mean())
    assert changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_noise_and_an_empty_change_reproduce_the_recording(name):
    """With the recorded state as its start the masked run is the run itself, for solvers without
    memory or noise."""
    if name in ("dpmpp_2m", "ddpm"):
        pytest.skip("starts its memory anew, or draws fresh noise")
    process, _, recording = record(name)
    masked = MaskedRun(recording, left_half(), 0.6)
    solver = ReferenceSolver(process.solver.function, masked.sigmas)
    again = SolverRun(solver, process.denoiser, recording.states[masked.first_evaluation])
    result = masked.finish(again.sample(masked.evaluate(again.denoise)))
    torch.testing.assert_close(result, recording.final, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("denoise", "step"), [(1.0, 0), (0.7, 3), (0.1, 9), (0.01, 9)])
def test_denoise_runs_the_last_share_of_the_schedule(denoise, step):
    _, _, recording = record("dpm_solver_2")
    first_step, evaluation = recording.start_of(denoise)
    assert first_step == step
    assert recording.sigmas[evaluation] == recording.schedule[step]


@pytest.mark.parametrize("denoise", [1.0, 0.7, 0.65, 0.55, 0.1, 0.01])
def test_a_schedule_is_cut_where_its_recording_is(denoise):
    _, _, recording = record("ddim")
    part = last_part(recording.schedule, denoise)
    assert torch.equal(part, MaskedRun(recording, left_half(), denoise).sigmas)
    assert len(part) > 1
    with pytest.raises(ValueError, match="denoise must lie"):
        last_part(recording.schedule, 0.0)


def test_budget_halves_the_precision_then_gives_up_with_a_note():
    _, _, full = record("ddim")
    needed = full.states.numel() * 2 * 4 / 2**20
    _, _, half = record("ddim", budget_mb=needed * 0.6)
    assert half.states.dtype == torch.float16 and full.states.dtype == torch.float32
    _, recorder, nothing = record("ddim", budget_mb=needed * 0.4)
    assert nothing is None
    assert "not recorded" in recorder.note


def test_senseless_requests_are_refused():
    _, _, recording = record("ddim")
    with pytest.raises(ValueError, match="mask is empty"):
        MaskedRun(recording, torch.zeros(2, 1, 6, 6), 0.7)
    with pytest.raises(ValueError, match="denoise must lie"):
        recording.start_of(0.0)


def test_the_lowest_score_wins_and_the_original_stays_when_it_is_best():
    scores = torch.tensor([[3.0, 1.0, float("nan")], [2.0, 4.0, 5.0]])
    best, improved = choose_candidate(scores, original=torch.tensor([2.5, 0.5, 9.0]))
    assert best.tolist() == [1, 0, 1]
    assert improved.tolist() == [True, False, True]
    assert choose_candidate(scores)[1].all()


def renoised_run(name, mask, denoise=0.7, copies=3):
    process, _, recording = record(name)
    step, _ = recording.start_of(denoise)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(copies * 2, 2, 6, 6, generator=generator)
    run = RenoisedRun(recording.final, mask, renoise, noise[:2], copies)
    schedule = recording.schedule[step:]
    solver = ReferenceSolver(
        process.solver.function,
        schedule,
        noise=lambda: torch.randn(noise.shape, generator=generator),
    )
    again = SolverRun(solver, process.denoiser, run.start(renoise, schedule[0], noise))
    return recording, again, run


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("soft", [False, True])
def test_without_a_recording_the_outside_comes_back_to_the_bit(name, soft):
    mask = left_half(soft)
    recording, again, run = renoised_run(name, mask)
    result = run.finish(again.sample(run.evaluate(again.denoise)))
    outside = mask.expand_as(recording.final) == 0
    for candidate in result.unflatten(0, (3, 2)):
        assert torch.equal(candidate[outside], recording.final[outside])
        assert ((candidate - recording.final)[..., :3].abs() > 1e-3).float().mean() > 0.9


def test_without_a_recording_the_model_sees_the_image_noised_to_its_level():
    mask = left_half()
    recording, again, run = renoised_run("ddim", mask, copies=1)
    seen = []

    def watched(k, z, sigma):
        seen.append((z, sigma))
        return again.denoise(k, z, sigma)

    again.sample(run.evaluate(watched))
    for state, sigma in seen:
        expected = renoise(sigma, run.noise, recording.final)
        torch.testing.assert_close(state[..., 3:], expected[..., 3:], rtol=0, atol=0)


def begin(mode, masked, noise, moves=None):
    """Initial states by a noise mode."""
    return NOISE_MODES[mode].begin(Start(masked, noise, renoise, lambda: moves))[1]


def test_around_the_final_image_the_start_is_its_noised_state():
    _, _, recording = record("ddim")
    masked = MaskedRun(recording, torch.ones(2, 1, 6, 6), 0.7)
    noise = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    start = begin("final", masked, noise)
    torch.testing.assert_close(start, renoise(masked.sigmas[0], noise, recording.final))
    assert not torch.allclose(start, begin("denoised", masked, noise))


def test_an_unfinished_image_is_no_centre_for_fresh_noise():
    process, recorder, _ = record("ddim")
    unfinished = recorder.finish(process.x, process.sigmas[:-1])
    masked = MaskedRun(unfinished, left_half(), 0.5)
    with pytest.raises(ValueError, match="stopped before the end"):
        begin("final", masked, process.x)


@pytest.mark.parametrize("budget_mb", [64.0, 0.008, 0.004])
def test_a_run_of_unknown_length_is_recorded_as_one_of_known_length(budget_mb):
    process, known, recording = record("ddim", budget_mb)
    afterwards = Recorder(None, budget_mb)
    process.observers[:] = [afterwards]
    found = afterwards.finish(process.sample(), process.sigmas)
    assert afterwards.note == known.note
    assert (found is None) == (recording is None) == (budget_mb == 0.004)
    if found is not None:
        assert found.states.dtype == (torch.float32 if budget_mb == 64.0 else torch.float16)
        assert torch.equal(found.states, recording.states)
        assert torch.equal(found.denoised, recording.denoised)


def posterior_process(name="ddim", features=3):
    generator = torch.Generator().manual_seed(0)
    denoiser = LinearDenoiser(2, 6, torch.randn(36, features, generator=generator))
    x = torch.randn(2, 2, 6, 6, generator=generator)
    solver = ReferenceSolver(SAMPLERS[name], flow_sigmas(STEPS), name=name)
    process = SolverRun(solver, denoiser, x)
    recorder = Recorder(process.trace.evaluations)
    process.observers.append(recorder)
    return process, recorder.finish(process.sample(), process.sigmas)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "dpm_solver_2"])
def test_moves_have_the_variance_of_runs_with_drawn_weights(name):
    """The truth: whole runs up to the step with weights from the posterior. The tangents are exact
    for a linear denoiser when refreshed at every evaluation; 256 draws leave about 10% noise."""
    process, recording = posterior_process(name)
    posterior = unit_posterior(2, torch.full((3,), 40.0))
    row = 4
    moves = posterior_moves(process, posterior, recording, row, probes=258, refreshes=99)
    drawn = moves[2:].square().sum(0) * (NU + 256) / 256
    states = []
    generator = torch.Generator().manual_seed(1)
    for delta in posterior.draw(256, generator):
        watched = []

        def evaluate(k, z, sigma, delta=delta, watched=watched):
            watched.append(z)
            with process.denoiser.perturbed(delta[None]):
                return process.denoise(k, z, sigma)

        process.replay(evaluate)
        states.append(watched[row])
    truth = torch.stack(states).var(0)
    assert (drawn / truth).median() == pytest.approx(1, rel=0.15)
    assert torch.corrcoef(torch.stack([drawn.flatten(), truth.flatten()]))[0, 1] > 0.95


@pytest.mark.parametrize("along", [False, True])
def test_drawn_displacements_have_the_variance_of_the_moves(along):
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(5, 2, 2, 6, 6, generator=generator)
    noise = torch.randn(2 * 4000, 2, 6, 6, generator=generator)
    draw = along_moves if along else independent_moves
    drawn = draw(moves, noise).unflatten(0, (4000, 2))
    ratio = drawn.var(0) / moves.square().sum(0)
    # 4000 draws: the variance is known to 2%, the furthest of 144 pixels to four times that.
    assert (ratio - 1).abs().max() < 0.1
    neighbours = torch.corrcoef(drawn[:, 0].flatten(1).T)
    expected = torch.nn.functional.normalize(moves[:, 0].flatten(1), dim=0)
    expected = expected.T @ expected if along else torch.eye(72)
    assert (neighbours - expected).abs().max() < 0.1


@pytest.mark.parametrize("mode", NOISE_MODES)
def test_every_noise_mode_leaves_the_outside_where_it_was_recorded(mode):
    """Or, for plain inpainting, noised as a whole; inside all candidates differ."""
    _, recording = posterior_process()
    masked = MaskedRun(recording, left_half(), 0.7, copies=2)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 2, 6, 6, generator=generator)
    start = begin(mode, masked, noise, torch.randn(5, 2, 2, 6, 6, generator=generator))
    outside = recording.states[masked.first_evaluation]
    if mode == "img2img":
        outside = renoise(masked.sigmas[0], noise[:2], recording.final)
    for copy in start.chunk(2):
        torch.testing.assert_close(copy[..., 3:], outside[..., 3:])
    assert (start[:2, ..., :3] != start[2:, ..., :3]).all()


def test_a_moved_start_leaves_the_outside_and_needs_a_step_behind_it():
    process, recording = posterior_process()
    masked = MaskedRun(recording, left_half(), 0.7, copies=2)
    start = masked.moved(torch.ones(4, 2, 6, 6))
    state = recording.states[masked.first_evaluation]
    assert torch.equal(start[:2, ..., 3:], state[..., 3:])
    torch.testing.assert_close(start[2:, ..., :3], state[..., :3] + 1)
    with pytest.raises(ValueError, match="Lower denoise"):
        posterior_moves(process, unit_posterior(2, torch.ones(3)), recording, 0)


def test_candidates_are_judged_over_the_late_evaluations_of_the_whole_run():
    """The same as of the original: a part that runs again counts from where it starts."""
    process, _, recording = record("ddim")
    masked = MaskedRun(recording, torch.ones(2, 1, 6, 6), 0.9, copies=3)
    noise = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    region, start = NOISE_MODES["denoised"].begin(Start(masked, noise, renoise, lambda: noise))
    run = SolverRun(ReferenceSolver(SAMPLERS["ddim"], masked.sigmas), process.denoiser, start)
    found = sample_candidates(region, run, recording.schedule, recording.final, masked)
    late = late_evaluations(len(recording.sigmas)).start
    assert late > masked.first_evaluation > 0
    own = found.recording.denoised[late - masked.first_evaluation :]
    torch.testing.assert_close(found.trajectory, trajectory_variance(own))
    theirs = trajectory_variance(recording.denoised[late:])
    torch.testing.assert_close(found.original_trajectory, theirs)
