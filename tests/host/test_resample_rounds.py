"""Rounds of MaskedResample: from what is best so far, until nothing gets better."""

import pytest
import torch

from tests.host.resampling import left_half, resample


def two_squares():
    masks = torch.zeros(1, 16, 16)
    masks[:, 1:7, 1:7] = 1
    masks[:, 9:15, 9:15] = 1
    return masks


def numbers(report):
    """Scores before and after of the regions that changed."""
    lines = [line for line in report.splitlines() if " became " in line]
    pairs = [line.split(": ")[1].split(" with ")[0].split(" became ") for line in lines]
    return [(float(before), float(after)) for before, after in pairs]


def test_rounds_are_the_node_again_on_its_own_result(scene):
    """The second round is a run of the node on the first one's latent, with the next noise."""
    samples, uncertainty = scene.uncertain(contrast=False)
    changes = {"rule": "trajectory", "candidates": 2, "mask": two_squares()}
    both, after, report = resample(scene, samples, uncertainty, rounds=2, **changes)
    once, between, _ = resample(scene, samples, uncertainty, **changes)
    twice, last, _ = resample(scene, once, between, **{**changes, "seed": 2})
    assert torch.equal(both, twice)
    assert torch.equal(after.signal("trajectory").map, last.signal("trajectory").map)
    assert torch.equal(after.recording.states, last.recording.states)
    assert report.splitlines()[1].startswith("round 1: ")
    assert report.splitlines()[2].startswith("round 2: ")


@pytest.mark.parametrize("rule", ["contrast", "trajectory", "artifact"])
def test_scores_only_fall_and_the_outside_stays(scene, rule):
    samples, uncertainty = scene.uncertain(contrast=False)
    changes = {"rule": rule, "candidates": 2, "mask": two_squares()}
    _, _, one = resample(scene, samples, uncertainty, **changes)
    result, after, report = resample(scene, samples, uncertainty, rounds=5, **changes)
    assert len(numbers(report)) >= len(numbers(one)) > 0
    assert all(found < before for before, found in numbers(report))
    outside = (two_squares() == 0).expand_as(samples)
    assert torch.equal(result[outside], samples[outside])
    assert torch.equal(after.recording.final, result)
    assert len(after.settings.resampled) == 1
    found = [line for line in report.splitlines() if line.startswith("round ")]
    improved = [int(line.split(": ")[1].split(" of ")[0]) for line in found]
    assert all(improved[:-1])
    # It ends at the first round that changes nothing, and says so.
    assert (improved[-1] == 0) == ("so the rounds ended" in report)
    assert len(found) == 5 or improved[-1] == 0


def test_without_the_original_only_the_first_round_has_to_change(scene):
    """What the first round took stays unless something better comes."""
    samples, uncertainty = scene.uncertain(contrast=False)
    changes = {"rule": "trajectory", "candidates": 1, "keep_original": False}
    once, _, first = resample(scene, samples, uncertainty, **changes)
    many, _, report = resample(scene, samples, uncertainty, rounds=4, **changes)
    before = [after for _, after in numbers(first)]
    after = [after for _, after in numbers(report)]
    assert len(after) == len(before) == 3
    assert all(new <= old for new, old in zip(after, before, strict=True))
    assert after != before
    assert not torch.equal(many, once)


@pytest.mark.parametrize(("noise_mode", "schedules"), [("denoised", 1), ("posterior_tangents", 2)])
def test_rounds_trace_their_sampler_once(scene, laplace, monkeypatch, noise_mode, schedules):
    """Once on the part that runs again, and where a posterior moves its start on the whole."""
    module = scene.host.module("nodes.host.solver_run")
    trace, traced = module.trace_solver, []

    def counted(*args, **kwargs):
        traced.append(1)
        return trace(*args, **kwargs)

    samples, uncertainty = scene.uncertain(contrast=False)
    monkeypatch.setattr(module, "trace_solver", counted)
    changes = {"rule": "trajectory", "candidates": 4, "mask": two_squares(), "rounds": 3}
    posterior = {"noise_mode": noise_mode, "laplace": laplace}
    _, _, report = resample(scene, samples, uncertainty, **changes, **posterior)
    assert "round 2: " in report
    assert len(traced) == schedules


@pytest.mark.parametrize("rule", ["random", "all"])
def test_rules_that_compare_nothing_have_one_round(scene, rule):
    samples, uncertainty = scene.uncertain(contrast=False)
    one, _, _ = resample(scene, samples, uncertainty, rule=rule)
    many, _, report = resample(scene, samples, uncertainty, rule=rule, rounds=4)
    assert torch.equal(one, many)
    assert f"one round: the rule {rule} compares nothing" in report


@pytest.mark.parametrize("rule", ["contrast", "trajectory", "artifact"])
def test_rounds_go_on_without_a_recording(scene, rule):
    """Also where nothing is known of the original: what was taken is known."""
    samples, _ = scene.uncertain()
    chosen = {"sampler_name": "euler", "scheduler": "simple", "steps": 5, "cfg": 2.0}
    changes = {"rule": rule, "candidates": 2, "keep_original": False, **chosen}
    _, _, one = resample(scene, samples, None, **changes)
    result, _, report = resample(scene, samples, None, rounds=6, **changes)
    assert "round 2: " in report
    assert torch.equal(result[..., 8:], samples[..., 8:])
    before = [float(line.split(" became ")[1].split()[0]) for line in one.splitlines()[2:]]
    regions = [line for line in report.splitlines() if line.startswith("image ")]
    after = [float(line.split(" became ")[1].split()[0]) for line in regions]
    assert len(after) == len(before) == 3
    assert all(new <= old for new, old in zip(after, before, strict=True))


def test_one_bar_shows_all_rounds(scene, monkeypatch):
    import comfy.utils

    seen = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK",
        lambda value, total, preview, node_id=None: seen.append((value, total)),
    )  # fmt: skip
    samples, uncertainty = scene.uncertain(contrast=False)
    seen.clear()
    _, _, report = resample(
        scene, samples, uncertainty, rule="trajectory", keep_original=False, rounds=3,
        mask=left_half(), candidates=4,
    )  # fmt: skip
    rounds = sum(line.startswith("round ") for line in report.splitlines())
    assert rounds > 1
    # Three of four steps run again in each round.
    assert seen == [(step + 1, 9) for step in range(3 * rounds)]


def test_cancelling_in_the_second_round_leaves_nothing_behind(scene, monkeypatch):
    import comfy.model_management
    import comfy.utils

    from tests.host.test_traces_left import fingerprint_of_the_host

    samples, uncertainty = scene.uncertain(contrast=False)
    before = fingerprint_of_the_host(scene.model)
    seen = []

    def cancel(value, total, preview, node_id=None):
        seen.append(value)
        if value == 5:
            comfy.model_management.interrupt_current_processing()

    changes = {"rule": "trajectory", "keep_original": False, "rounds": 3, "candidates": 4}
    with monkeypatch.context() as patch:
        patch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            resample(scene, samples, uncertainty, **changes)
    assert max(seen) == 5
    assert fingerprint_of_the_host(scene.model) == before
    assert torch.equal(*(resample(scene, samples, uncertainty, **changes)[0] for _ in range(2)))
