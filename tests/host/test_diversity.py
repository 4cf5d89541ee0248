"""BayesDiffDiversity: variants that differ inside, and are the image itself outside."""

import pytest
import torch

from tests.host.resampling import left_half


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


@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m", "euler_ancestral"])
def test_along_the_posterior_everything_is_free(scene, laplace, sampler_name):
    samples, uncertainty = scene.uncertain(sampler_name=sampler_name, contrast=False)
    changes = {"along": "posterior", "laplace": laplace}
    found, report = variants(scene, samples, uncertainty, **changes)
    assert report.startswith("3 variants, 100% of the picture free")
    moves = found - samples
    assert (moves.abs() > 0).float().mean() > 0.99
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    inside, _ = variants(scene, samples, uncertainty, mask=mask, **changes)
    assert torch.equal(inside[..., 8:, :], samples[..., 8:, :].expand_as(inside[..., 8:, :]))
    assert not torch.equal(inside[..., :8, :], samples[..., :8, :].expand_as(inside[..., :8, :]))


def test_variants_along_the_posterior_lie_in_the_span_of_its_tangents(scene, laplace):
    """The start is linear in five of them at most, so that is how many ways there are to differ.
    Only the denoiser comes between the start and the result of a last step, and bends that a
    little; fresh noise has no such limit."""
    samples, uncertainty = scene.uncertain(steps=10, contrast=False)
    rests = []
    for changes in ({"along": "posterior", "laplace": laplace}, {"mask": torch.ones(1, 16, 16)}):
        found, _ = variants(scene, samples, uncertainty, variants=24, denoise=0.1, **changes)
        values = torch.linalg.svdvals((found - samples)[:, 0].flatten(1)).square()
        rests.append(float(values[5:].sum() / values.sum()))
    assert rests[0] < 0.01
    assert rests[1] > 0.3


def test_along_the_posterior_needs_one(scene, monkeypatch):
    samples, uncertainty = scene.uncertain(contrast=False)

    def never(*_args, **_kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(scene.model.model.diffusion_model, "forward", never)
    with pytest.raises(ValueError, match="connect a LAPLACE"):
        variants(scene, samples, uncertainty, along="posterior")


def test_a_run_without_a_recording_is_refused(scene):
    samples, uncertainty = scene.uncertain(recording_mb=0)
    with pytest.raises(ValueError, match="no recorded trajectory"):
        variants(scene, samples, uncertainty)


def test_an_uncertainty_of_no_run_says_what_is_really_missing(scene):
    samples, _ = scene.uncertain()
    inputs = {"positive": scene.positive, "negative": scene.negative}
    (judged,) = scene.host.call(
        "BayesDiffContrast", model=scene.model, latent={"samples": samples}, seed=1, **inputs
    ).outputs
    with pytest.raises(ValueError, match="no run made it. Sample the image with") as raised:
        variants(scene, samples, judged, signal="contrast")
    assert "sampler_name" not in str(raised.value)


def test_variants_of_an_edited_latent_start_from_what_it_is_now(scene):
    samples, uncertainty = scene.uncertain(contrast=False)
    edited = samples + 0.5
    latent, report = scene.host.call(
        "BayesDiffDiversity", model=scene.model, latent={"samples": edited},
        uncertainty=uncertainty, positive=scene.positive, negative=scene.negative, seed=1,
        variants=2, denoise=0.7, signal="artifact", percentile=75.0, mask=left_half(),
    ).outputs  # fmt: skip
    assert "not the one that was recorded" in report
    assert torch.equal(latent["samples"][..., 8:], edited[..., 8:].repeat(2, 1, 1, 1))
    assert not torch.equal(latent["samples"][: len(edited), ..., :8], edited[..., :8])
