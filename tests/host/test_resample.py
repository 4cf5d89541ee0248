"""MaskedResample: something new inside the mask, the same to the bit outside."""

import pytest
import torch

from tests.host.conftest import noise
from tests.host.resampling import left_half, resample
from tests.host.test_every_sampler import NAMES
from tests.host.test_traces_left import fingerprint_of_the_host

REFUSED = ["dpm_adaptive", "dpm_fast"]
"""Samplers whose steps depend on the image, or on the length of the schedule."""


@pytest.mark.parametrize("sampler_name", [name for name in NAMES if name not in REFUSED])
def test_outside_stays_and_inside_changes(scene, sampler_name):
    samples, uncertainty = scene.uncertain(
        sampler_name=sampler_name, steps=5, contrast=False, cfg=1.0
    )
    soft = len(sampler_name) % 2 == 0
    result, _, _ = resample(scene, samples, uncertainty, mask=left_half(soft))
    assert torch.equal(result[..., 8:], samples[..., 8:])
    assert ((result - samples)[..., :6].abs() > 1e-3).float().mean() > 0.9
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("sampler_name", REFUSED)
def test_samplers_that_cannot_be_resumed_are_refused(scene, sampler_name, monkeypatch):
    samples, uncertainty = scene.uncertain(sampler_name=sampler_name, steps=5, contrast=False)

    def never(*_args, **_kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(scene.model.model.diffusion_model, "forward", never)
    with pytest.raises(ValueError, match=f"'{sampler_name}' .* such as dpmpp_2m"):
        resample(scene, samples, uncertainty)


def test_the_whole_schedule_under_a_full_mask_is_a_run_of_its_own(scene):
    """With everything free and all steps run again, the start is KSampler's for the same noise."""
    samples, uncertainty = scene.uncertain(seed=2)
    result, _, _ = resample(
        scene, samples, uncertainty, mask=torch.ones(1, 16, 16), denoise=1.0, candidates=1, seed=5
    )
    torch.testing.assert_close(result, scene.ksampler(seed=5), rtol=1e-4, atol=1e-5)


def test_candidates_are_as_if_sampled_one_by_one(scene):
    """The first of four is the first of one: copies of the batch do not disturb each other."""
    samples, uncertainty = scene.uncertain()
    four, _, _ = resample(scene, samples, uncertainty, candidates=4)
    one, _, _ = resample(scene, samples, uncertainty, candidates=1)
    torch.testing.assert_close(four, one, rtol=1e-4, atol=1e-5)


RULES = ["contrast", "trajectory", "artifact"]


@pytest.mark.parametrize("rule", RULES)
def test_the_choice_never_makes_the_score_worse(scene, rule):
    samples, uncertainty = scene.uncertain()
    many, after, report = resample(scene, samples, uncertainty, rule=rule, candidates=3)
    changed = [not torch.equal(a, b) for a, b in zip(many, samples, strict=True)]
    for image, line in enumerate(report.splitlines()[1:]):
        assert line.startswith(f"image {image + 1}:")
        assert ("became" in line) == changed[image]
        assert ("kept the original" in line) != changed[image]
    assert after.signal(rule).map.shape == uncertainty.signal("trajectory").map.shape
    outside = after.signal("trajectory").map[..., 8:]
    assert torch.equal(outside, uncertainty.signal("trajectory").map[..., 8:])


@pytest.mark.parametrize("rule", RULES)
def test_every_region_is_judged_on_its_own(scene, rule):
    """Each region is one of the candidates, or the original, whatever the other one takes."""
    samples, uncertainty = scene.uncertain()
    masks = torch.zeros(1, 16, 16)
    masks[:, 1:7, 1:7] = 1
    masks[:, 9:15, 9:15] = 1
    result, after, report = resample(
        scene, samples, uncertainty, mask=masks, rule=rule, candidates=4
    )
    lines = report.splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == [
        f"image {image}, region {region}" for image in (1, 2, 3) for region in (1, 2)
    ]
    places = [(..., slice(1, 7), slice(1, 7)), (..., slice(9, 15), slice(9, 15))]
    for number, line in enumerate(lines):
        image, place = number // 2, places[number % 2]
        same = torch.equal(result[image][place], samples[image][place])
        assert same == ("kept the original" in line)
        assert ("became" in line) != same
        if not same:
            before, found = line.split(": ")[1].split(" with ")[0].split(" became ")
            assert float(found) < float(before)
    outside = (masks == 0).expand_as(samples)
    assert torch.equal(result[outside], samples[outside])
    assert torch.equal(after.recording.final, result)


def test_the_result_can_be_resampled_again(scene):
    samples, uncertainty = scene.uncertain(sampler_name="dpmpp_2m")
    once, uncertainty, _ = resample(scene, samples, uncertainty)
    assert torch.equal(uncertainty.recording.final, once)
    right = left_half().flip(-1)
    twice, _, _ = resample(scene, once, uncertainty, mask=right, seed=8)
    assert torch.equal(twice[..., :8], once[..., :8])
    assert not torch.equal(twice[..., 8:], once[..., 8:])


def test_the_rule_all_returns_every_candidate_and_the_original_last(scene):
    """Tile-major, each one as if it alone had been taken; scores and recordings go with them."""
    samples, uncertainty = scene.uncertain(contrast=False)
    found, after, report = resample(scene, samples, uncertainty, rule="all", candidates=3)
    assert len(found) == 4 * len(samples)
    *candidates, original = found.unflatten(0, (4, -1))
    assert torch.equal(original, samples)
    first, first_after, _ = resample(scene, samples, uncertainty, rule="random", candidates=3)
    assert torch.equal(candidates[0], first)
    for candidate in candidates:
        assert torch.equal(candidate[..., 8:], samples[..., 8:])
        assert not torch.equal(candidate[..., :8], samples[..., :8])
    for maps in (after.signal("contrast").map, after.signal("trajectory").map):
        assert maps.shape == (len(found), 16, 16)
    trajectories = after.signal("trajectory").map.unflatten(0, (4, -1))
    assert torch.equal(trajectories[0], first_after.signal("trajectory").map)
    assert torch.equal(trajectories[-1], uncertainty.signal("trajectory").map)
    assert torch.equal(after.recording.final, found)
    for image, line in enumerate(report.splitlines()[1:]):
        assert line.startswith(f"image {image + 1}: candidates ")
        change = (candidates[2] - samples)[image, ..., :8].square().mean().sqrt()
        assert f", {change.item():.3g} rms (at 0, 0: 16 x 32 pixels" in line
    without, _, _ = resample(
        scene, samples, uncertainty, rule="all", candidates=3, keep_original=False
    )
    assert torch.equal(without, found[: 3 * len(samples)])


def test_artifact_joins_contrast_and_trajectory(scene):
    """Their difference is the geometric mean of the trajectory with one number an image."""
    samples, uncertainty = scene.uncertain(contrast=False)
    _, after, report = resample(
        scene, samples, uncertainty, rule="artifact", mask=torch.ones(1, 16, 16), candidates=3,
        keep_original=False,
    )  # fmt: skip
    assert report.startswith("3 candidates, chosen by artifact")
    maps = {name: after.signal(name).map for name in ("artifact", "contrast", "trajectory")}
    scale = (maps["artifact"] - maps["contrast"]).square() / maps["trajectory"]
    for image in scale.flatten(1):
        torch.testing.assert_close(image, image[:1].expand_as(image), rtol=1e-2, atol=1e-4)


def test_artifact_is_what_there_is_of_it(scene):
    samples, uncertainty = scene.uncertain(contrast=False)
    for rule in ("artifact", "auto"):
        report = resample(scene, samples, uncertainty, rule=rule)[2]
        assert report.startswith("2 candidates, chosen by artifact")
    changes = {"rule": "artifact", "negative": []}
    report = resample(scene, samples, uncertainty, cfg=1.0, **changes)[2]
    assert report.startswith("2 candidates, chosen by trajectory")
    chosen = {"sampler_name": "euler", "scheduler": "simple", "steps": 5, "cfg": 2.0}
    report = resample(scene, samples, None, rule="artifact", **chosen)[2]
    assert report.startswith("2 candidates, chosen by contrast")


def test_every_one_of_all_can_be_resampled_again(scene):
    samples, uncertainty = scene.uncertain(contrast=False)
    found, after, _ = resample(scene, samples, uncertainty, rule="all", candidates=1)
    rows = torch.cat([scene.positive[0][0]] * 2)
    again, _, _ = resample(
        scene, found, after, mask=left_half().flip(-1), positive=[[rows, {}]], seed=3
    )
    assert torch.equal(again[..., :8], found[..., :8])
    assert not torch.equal(again[..., 8:], found[..., 8:])


def test_the_best_of_all_is_what_the_rule_would_have_taken(scene):
    """Sorted by Rank, candidates come with their own scores, and the first is the chosen one."""
    samples, uncertainty = scene.uncertain(contrast=False)
    one = {"positive": [[scene.positive[0][0][:1], {}]], "mask": torch.ones(1, 16, 16)}
    samples, uncertainty = samples[:1], uncertainty.select(0)
    changes = {"candidates": 5, "keep_original": False, **one}
    found, after, _ = resample(scene, samples, uncertainty, rule="all", **changes)
    chosen, _, report = resample(scene, samples, uncertainty, rule="contrast", **changes)
    (place,) = [i for i, candidate in enumerate(found) if torch.equal(candidate, chosen[0])]
    means = after.signal("contrast").map.flatten(1).mean(1)
    assert place == means.argmin()
    assert f"candidate {place + 1}," in report
    _, latents, uncertainties, _, _ = scene.host.call(
        "BayesDiffRank", uncertainty=after, latent={"samples": found}, signal="contrast",
        order="best first", keep="all", count=1, percent=50.0,
    ).outputs  # fmt: skip
    (ranked,) = latents
    scores = after.signal("contrast").scores
    assert torch.equal(ranked["samples"], found[scores.argsort()])
    best = uncertainties[0].select(0)
    again, _, _ = resample(scene, ranked["samples"][:1], best, **{**changes, "mask": left_half()})
    assert torch.equal(again[..., 8:], ranked["samples"][:1][..., 8:])


def test_the_report_says_where_regions_lie_and_what_changed(scene):
    samples, uncertainty = scene.uncertain()
    mask = torch.zeros(1, 64, 64)
    mask[:, 8:24, 32:60] = 1
    mask[:, 40:48, 4:12] = 1
    result, _, report = resample(
        scene, samples, uncertainty, mask=mask, candidates=3, rule="trajectory"
    )
    lines = report.splitlines()
    assert lines[0] == "3 candidates, chosen by trajectory: low is good"
    assert len(lines) == 7
    for image in range(3):
        large, small = lines[1 + 2 * image : 3 + 2 * image]
        assert large.endswith("(at 32, 8: 28 x 16 pixels, 10.9% of the picture)")
        assert small.endswith("(at 4, 40: 8 x 8 pixels, 1.6% of the picture)")
        if "became" in large:
            change = (result - samples)[image, :, 2:6, 8:15].square().mean().sqrt()
            assert f"changed by {change.item():.3g} rms" in large
    assert "became" in report


def test_images_without_a_mask_stay(scene):
    samples, uncertainty = scene.uncertain()
    masks = left_half().repeat(3, 1, 1)
    masks[1] = 0
    result, _, report = resample(scene, samples, uncertainty, mask=masks, rule="contrast")
    assert torch.equal(result[1], samples[1])
    assert "image 2: nothing masked" in report


def test_an_empty_mask_returns_the_input_with_a_note(scene):
    samples, uncertainty = scene.uncertain()
    result, same, report = resample(scene, samples, uncertainty, mask=torch.zeros(1, 8, 8))
    assert result is samples and same is uncertainty
    assert "mask is empty" in report


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": torch.ones(2, 16, 16)}, "2 masks but 3 latents"),
        ({"mask": torch.full((1, 16, 16), float("nan"))}, "mask holds NaN"),
        ({"samples": torch.full((3, 2, 16, 16), float("nan"))}, "latent holds 1536 values"),
        ({"samples": torch.zeros(2, 2, 16, 16)}, "shape .*2, 2, 16, 16"),
        ({"rows": 2}, "positive holds 2 prompts but there are 3 latents"),
        ({"rule": "contrast", "negative": []}, "rule contrast needs a negative"),
    ],
)
def test_errors_are_sentences_raised_before_the_model_runs(scene, changes, words, monkeypatch):
    samples, uncertainty = scene.uncertain()
    samples = changes.pop("samples", samples)
    if rows := changes.pop("rows", 0):
        changes["positive"] = [[scene.positive[0][0][:rows], {}]]

    def never(*_args, **_kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(scene.model.model.diffusion_model, "forward", never)
    with pytest.raises(ValueError, match=words):
        resample(scene, samples, uncertainty, **changes)


def test_noise_of_the_seed_alone_decides(scene):
    samples, uncertainty = scene.uncertain()
    first, _, _ = resample(scene, samples, uncertainty, seed=4)
    noise((3,), 0)
    torch.randn(7)
    again, _, _ = resample(scene, samples, uncertainty, seed=4)
    other, _, _ = resample(scene, samples, uncertainty, seed=5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_cancelling_leaves_nothing_on_the_model(scene, monkeypatch):
    import comfy.model_management
    import comfy.utils

    samples, uncertainty = scene.uncertain()
    before = fingerprint_of_the_host(scene.model)

    def cancel(value, total, preview, node_id=None):
        comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    with monkeypatch.context() as patch:
        patch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            resample(scene, samples, uncertainty)
    assert fingerprint_of_the_host(scene.model) == before
    result, _, _ = resample(scene, samples, uncertainty)
    assert torch.equal(result[..., 8:], samples[..., 8:])


def test_a_last_part_without_an_evaluation_is_refused(scene):
    samples, uncertainty = scene.uncertain(sampler_name="dpm_adaptive", steps=3, contrast=False)
    with pytest.raises(ValueError, match="asks for nothing on the last 34%"):
        resample(scene, samples, uncertainty, denoise=0.34)


def test_one_place_puts_the_outside_back(scene, monkeypatch):
    """On a scaled latent the way in and out rounds; without that one place it would show."""
    monkeypatch.setattr(scene.model.model.latent_format, "scale_factor", 0.18215)
    rounds = scene.host.module("nodes.host.resample.rounds")
    samples = noise(scene.latent["samples"].shape, 3)
    plan = {"sampler_name": "euler", "scheduler": "simple", "steps": 4, "cfg": 3.0}

    def outside():
        result, _, _ = resample(scene, samples, None, rule="trajectory", rounds=2, **plan)
        return result[..., 8:]

    assert torch.equal(outside(), samples[..., 8:])
    monkeypatch.setattr(rounds, "put_back", lambda result, _samples, _untouched: result)
    assert not torch.equal(outside(), samples[..., 8:])
