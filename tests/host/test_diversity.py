"""BayesDiffDiversity: variants that differ inside, and are the image itself outside."""

import pytest
import torch


def variants(scene, samples, uncertainty, **changes):
    inputs = {
        **{"model": scene.model, "latent": {"samples": samples}, "uncertainty": uncertainty},
        **{"positive": scene.positive, "negative": scene.negative, "seed": 1, "variants": 3},
        **{"denoise": 0.7, "signal": "trajectory", "percentile": 75.0, **changes},
    }
    latent, report = scene.host.call("BayesDiffDiversity", **inputs).outputs
    return latent["samples"].unflatten(0, (inputs["variants"], -1)), report


@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m", "euler_ancestral", "dpmpp_sde"])
def test_they_differ_where_the_signal_is_high_and_nowhere_else(scene, sampler_name):
    samples, uncertainty = scene.uncertain(sampler_name=sampler_name, contrast=False)
    found, report = variants(scene, samples, uncertainty)
    smooth = scene.host.module("bayesdiff_core.signals").smooth
    maps = smooth(uncertainty.signal("trajectory").map, 2)
    free = maps > maps.flatten(1).quantile(0.75, dim=1)[:, None, None]
    free = free[:, None].expand_as(samples)
    for variant in found:
        assert torch.equal(variant[~free], samples[~free])
        assert ((variant - samples)[free].abs() > 1e-3).float().mean() > 0.9
    assert (found[0] - found[1])[free].square().mean() > 1e-3
    assert "3 variants" in report
    assert len(report.splitlines()) == 1 + len(samples)


def test_a_mask_replaces_the_signal(scene):
    samples, uncertainty = scene.uncertain()
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    found, _ = variants(scene, samples, uncertainty, mask=mask)
    assert torch.equal(found[..., 8:, :], samples[..., 8:, :].expand_as(found[..., 8:, :]))
    assert not torch.equal(found[..., :8, :], samples[..., :8, :].expand_as(found[..., :8, :]))


def test_the_seed_decides(scene):
    samples, uncertainty = scene.uncertain()
    first, _ = variants(scene, samples, uncertainty)
    again, _ = variants(scene, samples, uncertainty)
    other, _ = variants(scene, samples, uncertainty, seed=2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_empty_mask_is_refused(scene):
    samples, uncertainty = scene.uncertain()
    with pytest.raises(ValueError, match="mask is empty"):
        variants(scene, samples, uncertainty, mask=torch.zeros(1, 16, 16))
