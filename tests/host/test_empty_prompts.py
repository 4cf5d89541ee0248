"""Conditioning lists without an entry: the image is KSampler's, or a sentence says what to do."""

import pytest
import torch

from tests.host.resampling import resample

SIDES = [("positive",), ("negative",), ("positive", "negative")]
NO_PROMPT = "There is no prompt at all"


def without(sides):
    return {side: [] for side in sides}


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("sampler_name", ["euler", "euler_cfg_pp"])
def test_without_a_posterior_the_image_is_the_host_s(scene, sides, sampler_name):
    inputs = {**without(sides), "sampler_name": sampler_name}
    found, _ = scene.uncertain(**inputs)
    assert torch.equal(found, scene.ksampler(**inputs))


@pytest.mark.parametrize("method", ["tangent", "ensemble", "bayesdiff"])
@pytest.mark.parametrize("sides", SIDES[:2])
def test_one_prompt_is_enough_for_a_posterior(scene, laplace, method, sides):
    found, uncertainty = scene.uncertain(laplace=laplace, method=method, **without(sides))
    if method != "bayesdiff":
        assert torch.equal(found, scene.ksampler(**without(sides)))
    found = uncertainty.signal("posterior").map
    assert torch.isfinite(found).all() and (found > 0).any()


def test_without_any_prompt_there_is_nothing_to_fit_on(scene):
    with pytest.raises(ValueError, match=NO_PROMPT):
        scene.fit(conditioning=[])


@pytest.mark.parametrize("noise_mode", ["posterior", "posterior_tangents"])
def test_a_region_is_moved_along_a_posterior_by_one_prompt_but_not_by_none(
    scene, laplace, noise_mode
):
    samples, uncertainty = scene.uncertain(contrast=False)
    inputs = {"laplace": laplace, "noise_mode": noise_mode}
    for sides in SIDES[:2]:
        found, *_ = resample(scene, samples, uncertainty, **inputs, **without(sides))
        assert torch.isfinite(found).all()
    with pytest.raises(ValueError, match=NO_PROMPT):
        resample(scene, samples, uncertainty, **inputs, **without(SIDES[2]))


@pytest.mark.parametrize("sides", SIDES)
def test_a_region_needs_no_prompt_to_be_sampled_again(scene, sides):
    samples, uncertainty = scene.uncertain(contrast=False)
    found, *_ = resample(scene, samples, uncertainty, rule="trajectory", **without(sides))
    assert torch.isfinite(found).all()
