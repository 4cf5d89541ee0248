"""MaskedResample of a latent that no recording belongs to, or by another sampler or schedule."""

import pytest
import torch

from tests.host.conftest import noise
from tests.host.resampling import left_half, resample
from tests.host.test_every_sampler import NAMES
from tests.host.tiny import ARCHITECTURES, tiny_scene

CHOSEN = {"sampler_name": "euler", "scheduler": "simple", "steps": 5, "cfg": 2.0}
"""All that a latent without a recorded run needs."""

APPROXIMATE = "only approximately"


def picture(scene):
    """A latent that was never sampled here."""
    return torch.tanh(noise(scene.latent["samples"].shape, 3))


@pytest.mark.parametrize("sampler_name", [name for name in NAMES if name != "dpm_adaptive"])
def test_a_latent_from_elsewhere_stays_outside(scene, sampler_name):
    samples = picture(scene)
    changes = {**CHOSEN, "sampler_name": sampler_name, "cfg": 1.0}
    soft = len(sampler_name) % 2 == 0
    result, after, report = resample(scene, samples, None, mask=left_half(soft), **changes)
    assert torch.equal(result[..., 8:], samples[..., 8:])
    assert ((result - samples)[..., :6].abs() > 1e-3).float().mean() > 0.9
    assert torch.isfinite(result).all()
    assert APPROXIMATE in report
    assert after.recording is None
    assert torch.isfinite(after.signal("trajectory").map).all()


@pytest.mark.parametrize("kind", ["flow", "eps", "v"])
def test_the_image_is_noised_to_the_level_at_which_the_schedule_is_cut(scene, kind):
    """And from there the host's own inpainting makes the same of the same noise."""
    import comfy.samplers

    samples, model = picture(scene), scene.of_kind(kind)
    steps, denoise = 5, 0.55
    result, _, _ = resample(
        scene, samples, None, model=model, denoise=denoise, candidates=1, **CHOSEN
    )
    schedule = comfy.samplers.KSampler(
        model, steps, torch.device("cpu"), "euler", "simple", 1.0, {}
    ).sigmas
    sigmas = schedule[min(round((1 - denoise) * steps), steps - 1) :]
    assert len(sigmas) == 1 + 3
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(scene.positive, scene.negative)
    guider.set_cfg(CHOSEN["cfg"])
    mask = left_half()[:, None, ::2, ::2].expand(3, 1, 16, 16)
    expected = guider.sample(
        noise(samples.shape, 1), samples, comfy.samplers.sampler_object("euler"), sigmas,
        denoise_mask=mask.contiguous(), seed=1,
    )  # fmt: skip
    torch.testing.assert_close(result[..., :8], expected[..., :8], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("missing", [*CHOSEN, "all"])
def test_what_is_missing_is_named(scene, missing, monkeypatch):
    def never(*_args, **_kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(scene.model.model.diffusion_model, "forward", never)
    defaults = {"sampler_name": "recorded", "scheduler": "recorded", "steps": 0, "cfg": 0.0}
    changes = defaults if missing == "all" else {**CHOSEN, missing: defaults[missing]}
    words = "sampler_name, scheduler, steps and cfg" if missing == "all" else missing
    with pytest.raises(ValueError, match=f"Choose {words}: no recorded run"):
        resample(scene, picture(scene), None, **changes)


def test_a_run_that_was_not_recorded_still_says_how_it_was_sampled(scene):
    samples, uncertainty = scene.uncertain(recording_mb=0, sampler_name="dpmpp_2m", steps=6)
    assert uncertainty.recording is None
    result, after, report = resample(scene, samples, uncertainty, rule="contrast", candidates=3)
    by_hand, _, _ = resample(
        scene, samples, None, rule="contrast", candidates=3,
        sampler_name="dpmpp_2m", scheduler="simple", steps=6, cfg=3.0,
    )  # fmt: skip
    assert torch.equal(result, by_hand)
    assert APPROXIMATE in report
    assert torch.equal(result[..., 8:], samples[..., 8:])
    outside = uncertainty.signal("trajectory").map[..., 8:]
    assert torch.equal(after.signal("trajectory").map[..., 8:], outside)


def test_the_same_sampler_and_schedule_by_name_replay_the_recording(scene):
    samples, uncertainty = scene.uncertain(steps=6)
    default, _, report = resample(scene, samples, uncertainty)
    named, after, again = resample(
        scene, samples, uncertainty, sampler_name="euler", scheduler="simple", steps=6, cfg=3.0
    )
    assert torch.equal(default, named)
    assert report == again
    assert torch.equal(after.recording.final, named)


def test_another_sampler_on_the_same_steps_replays_the_recording(scene):
    samples, uncertainty = scene.uncertain(steps=6)
    result, after, report = resample(scene, samples, uncertainty, sampler_name="dpmpp_2m")
    assert APPROXIMATE not in report
    assert after.recording is not None
    assert not torch.equal(result, resample(scene, samples, uncertainty)[0])
    assert torch.equal(result[..., 8:], samples[..., 8:])


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler_name": "heun"},
        {"scheduler": "karras"},
        {"steps": 9},
        {"sampler_name": "dpm_fast"},
    ],
)
def test_other_steps_noise_the_image_anew(scene, changes):
    samples, uncertainty = scene.uncertain(steps=6)
    result, after, report = resample(scene, samples, uncertainty, **changes)
    assert APPROXIMATE in report
    assert torch.equal(result[..., 8:], samples[..., 8:])
    assert after.recording is None
    # What was sampled so can be sampled again, and has kept how the picture came about.
    again, _, _ = resample(scene, result, after, mask=left_half().flip(-1))
    assert torch.equal(again[..., :8], result[..., :8])


def test_an_original_without_a_trajectory_cannot_stay_for_it(scene):
    result, after, report = resample(
        scene, picture(scene), None, rule="trajectory", candidates=2, **CHOSEN
    )
    assert report.count(": unknown became ") == 3
    assert not torch.equal(result[..., :8], picture(scene)[..., :8])
    assert (after.signal("trajectory").map[..., 8:] == 0).all()


def test_contrast_keeps_originals_of_latents_from_elsewhere_to_the_bit(scene):
    samples = scene.uncertain()[0]
    masks = torch.zeros(1, 16, 16)
    masks[:, 1:7, 1:7] = 1
    masks[:, 9:15, 9:15] = 1
    result, after, report = resample(
        scene, samples, None, mask=masks, rule="contrast", candidates=2, **CHOSEN
    )
    lines = report.splitlines()[2:]
    assert len(lines) == 6
    places = [(..., slice(1, 7), slice(1, 7)), (..., slice(9, 15), slice(9, 15))]
    for number, line in enumerate(lines):
        image, place = number // 2, places[number % 2]
        same = torch.equal(result[image][place], samples[image][place])
        assert same == ("kept the original" in line)
    assert after.names == ["artifact", "contrast"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_spaces_that_are_scaled_and_videos_come_back_to_the_bit(host, architecture):
    """Outside the mask, and where the original stays, whatever the way into the model and out."""
    tiny = tiny_scene(host, architecture)
    samples = noise(tiny.latent["samples"].shape, 4)
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    changes = {"mask": mask, "candidates": 1, "rule": "contrast", "rounds": 2, **CHOSEN}
    result, _, report = resample(tiny, samples, None, **changes)
    every, after, _ = resample(tiny, samples, None, **{**changes, "rule": "all"})
    candidate, original = every.unflatten(0, (2, -1))
    assert torch.equal(original, samples)
    half = samples.shape[-2] // 2 + 1
    assert torch.equal(candidate[..., half:, :], samples[..., half:, :])
    assert not torch.equal(candidate, samples)
    assert after.signal("contrast").map.shape == (len(every), *samples.shape[2:])
    for image, line in enumerate(line for line in report.splitlines() if "pixels" in line):
        assert torch.equal(result[image], samples[image]) == ("kept the original" in line)
        assert torch.equal(result[image][..., half:, :], samples[image][..., half:, :])


@pytest.mark.parametrize("rule", ["contrast", "trajectory"])
def test_the_heatmap_shows_what_came_of_it(scene, rule):
    result, after, _ = resample(scene, picture(scene), None, rule=rule, **CHOSEN)
    mask = scene.host.call(
        "UncertaintyHeatmap", uncertainty=after, image=torch.rand(3, 32, 32, 3), signal="artifact",
        display="overlay", colormap="inferno", scale="image", opacity=0.7, threshold=90.0,
        grow=0.0, feather=0.0,
    ).outputs[1]  # fmt: skip
    assert mask.shape == (3, 32, 32)
    if rule == "trajectory":
        # Nothing was sampled outside, so nothing stands out there; the picture is scaled smoothly.
        assert not mask[..., 20:].any() and mask[..., :16].any()
    again, _, _ = resample(scene, result, after, mask=mask, **CHOSEN)
    outside = torch.nn.functional.max_pool2d(mask[:, None], 6, 2, 2) == 0
    outside = outside.expand_as(result)
    assert torch.equal(again[outside], result[outside])


def test_an_empty_mask_needs_nothing(scene):
    samples = picture(scene)
    result, uncertainty, report = resample(scene, samples, None, mask=torch.zeros(1, 8, 8))
    assert result is samples
    assert "mask is empty" in report
    assert type(uncertainty).__name__ == "ExecutionBlocker"


def test_a_picture_that_was_only_judged_can_be_repaired(scene):
    judged = scene.host.call(
        "BayesDiffContrast", model=scene.model, latent={"samples": picture(scene)},
        positive=scene.positive, negative=scene.negative, seed=0,
    ).outputs[0]  # fmt: skip
    result, after, _ = resample(scene, picture(scene), judged, rule="contrast", **CHOSEN)
    changed = (result != picture(scene)).flatten(1).any(1)
    before, found = (u.signal("contrast").map[..., :8].mean((1, 2)) for u in (judged, after))
    assert (found < before)[changed].all()
    with pytest.raises(ValueError, match="recorded for"):
        resample(scene, picture(scene)[..., :8], judged, **CHOSEN)


@pytest.mark.parametrize("mode", ["denoised", "final", "img2img"])
def test_a_latent_edited_after_sampling_is_repaired_from_what_it_is_now(scene, mode):
    samples, uncertainty = scene.uncertain()
    edited = samples.clone()
    edited[..., 8:] = noise(edited[..., 8:].shape, 11)
    repaired, after, report = resample(
        scene, edited, uncertainty, rule="auto", noise_mode=mode, keep_original=False
    )
    assert torch.equal(repaired[..., 8:], edited[..., 8:])
    assert not torch.equal(repaired[..., :8], edited[..., :8])
    assert "not the one that was recorded" in report
    assert after.recording is None
    same, _, report = resample(scene, samples, uncertainty, rule="auto", noise_mode=mode)
    assert "not the one that was recorded" not in report
    assert torch.equal(same[..., 8:], samples[..., 8:])


@pytest.mark.parametrize("sampler_name", ["euler", "uni_pc", "dpmpp_2m_sde", "euler_cfg_pp"])
@pytest.mark.parametrize("kind", ["flow", "eps"])
def test_the_recorded_latent_is_known_again(scene, kind, sampler_name):
    model = scene.of_kind(kind)
    samples, uncertainty = scene.uncertain(model=model, sampler_name=sampler_name, contrast=False)
    known = scene.host.module("nodes.host.validation").is_recorded
    assert known(model, samples, uncertainty.recording)
    assert not known(model, samples * 1.01, uncertainty.recording)


def test_a_posterior_moves_no_latent_that_was_edited(scene, laplace):
    samples, uncertainty = scene.uncertain(contrast=False)
    with pytest.raises(ValueError, match="moves a recorded state, and there is none"):
        resample(scene, samples + 1, uncertainty, noise_mode="posterior", laplace=laplace)


def test_contrast_of_an_edited_latent_leaves_out_what_the_run_said(scene):
    samples, uncertainty = scene.uncertain()
    inputs = {"model": scene.model, "positive": scene.positive, "negative": scene.negative}
    (judged,) = scene.host.call(
        "BayesDiffContrast", latent={"samples": samples + 1}, seed=0, uncertainty=uncertainty,
        **inputs,
    ).outputs  # fmt: skip
    assert set(judged.signals) == {"contrast"}
    assert any("not the one" in sentence for sentence in judged.settings.failures)
    (judged,) = scene.host.call(
        "BayesDiffContrast", latent={"samples": samples}, seed=0, uncertainty=uncertainty, **inputs
    ).outputs
    assert set(judged.signals) == {"trajectory", "contrast", "artifact"}
