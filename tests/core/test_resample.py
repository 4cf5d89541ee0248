"""Sampling a region again leaves the rest alone, to the bit, and starts where it says."""

import pytest
import torch

from bayesdiff_core.process import SolverProcess, tile
from bayesdiff_core.recording import Recorder
from bayesdiff_core.resample import MaskedRun, choose
from bayesdiff_core.samplers import SAMPLERS, flow_sigmas
from tests.core.linear import LinearDenoiser

STEPS = 10


def renoise(sigma, noise, x0):
    return (1 - sigma) * x0 + sigma * noise


def record(name, budget_mb=64.0, batch=2):
    denoiser = LinearDenoiser(2, 6, torch.ones(36, 1))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 2, 6, 6, generator=generator)
    process = SolverProcess(
        SAMPLERS[name], denoiser, x, flow_sigmas(STEPS), name=name,
        noise=lambda: torch.randn(x.shape, generator=generator),
    )  # fmt: skip
    recorder = Recorder(process.trace.evaluations, budget_mb)
    process.observers.append(recorder)
    return process, recorder, recorder.finish(process.sample(), process.sigmas)


def run_again(process, masked, seed=1):
    shape = tile(process.x, masked.copies).shape
    generator = torch.Generator().manual_seed(seed)
    again = SolverProcess(
        process.solver,
        process.denoiser,
        masked.start(renoise, torch.randn(shape, generator=generator)),
        masked.sigmas,
        noise=lambda: torch.randn(shape, generator=generator),
    )
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
    again = SolverProcess(
        process.solver,
        process.denoiser,
        recording.states[masked.first_evaluation],
        masked.sigmas,
    )
    result = masked.finish(again.sample(masked.evaluate(again.denoise)))
    torch.testing.assert_close(result, recording.final, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("denoise", "step"), [(1.0, 0), (0.7, 3), (0.1, 9), (0.01, 9)])
def test_denoise_runs_the_last_share_of_the_schedule(denoise, step):
    _, _, recording = record("dpm_solver_2")
    first_step, evaluation = recording.start_of(denoise)
    assert first_step == step
    assert recording.sigmas[evaluation] == recording.schedule[step]


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
    best, improved = choose(scores, original=torch.tensor([2.5, 0.5, 9.0]))
    assert best.tolist() == [1, 0, 1]
    assert improved.tolist() == [True, False, True]
    assert choose(scores)[1].all()
