"""The last layer of the host's own architectures: found, followed, and true to the weights."""

import pytest
import torch

from tests.host.test_features import cfg_guider, check_features, run
from tests.host.tiny import ARCHITECTURES, tiny_scene

LAST = {
    "unet": "out.2",
    "mmdit": "final_layer.linear",
    "flux": "final_layer.linear",
    "wan": "head.head",
    "lumina": "final_layer.linear",
}


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def tiny(host, request):
    scene = tiny_scene(host, request.param)
    return request.param, scene


def test_features_are_true_to_the_weights(tiny):
    name, scene = tiny

    def check(denoiser, layer):
        assert layer.layer.name == LAST[name]
        check_features(tolerance=1e-3)(denoiser, layer)

    run(scene, cfg_guider(scene, 3.0), check)


def test_latent_is_the_stock_one_with_a_variance(tiny):
    _, scene = tiny
    laplace = scene.fit()
    samples, uncertainty = scene.uncertain(laplace=laplace, sampler_name="dpmpp_2m")
    assert torch.equal(samples, scene.ksampler(sampler_name="dpmpp_2m"))
    std = uncertainty.latent_std
    assert std.shape == samples.shape
    assert torch.isfinite(std).all() and (std > 0).all()
    assert uncertainty.signal("contrast").map.shape == (len(samples), *samples.shape[2:])


def test_mask_is_sampled_again(tiny):
    _, scene = tiny
    samples, uncertainty = scene.uncertain(contrast=False)
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    result = scene.host.call(
        "MaskedResample", model=scene.model, latent={"samples": samples}, mask=mask,
        uncertainty=uncertainty, positive=scene.positive, negative=scene.negative, seed=1,
        denoise=0.7, candidates=2, rule="contrast", keep_original=False, cfg=0.0,
    ).outputs[0]["samples"]  # fmt: skip
    half = samples.shape[-2] // 2 + 1
    assert torch.equal(result[..., half:, :], samples[..., half:, :])
    assert not torch.equal(result, samples)
