"""BayesDiffContrast: the sampler's own signal for any latent, and nothing left on the model."""

import pytest
import torch


def contrast(scene, latent, **changes):
    inputs = {
        **{"model": scene.model, "latent": latent, "seed": 5},
        **{"positive": scene.positive, "negative": scene.negative, **changes},
    }
    return scene.host.call("BayesDiffContrast", **inputs).outputs[0]


@pytest.mark.parametrize("kind", ["flow", "eps", "v"])
def test_it_is_the_signal_of_the_sampler(scene, kind):
    model = scene.of_kind(kind)
    samples, uncertainty = scene.uncertain(model=model)
    found = contrast(scene, {"samples": samples}, model=model).signal("contrast").map
    expected = uncertainty.signal("contrast").map
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())


def test_it_is_added_to_the_uncertainty_of_the_run(scene):
    samples, uncertainty = scene.uncertain(contrast=False)
    assert "contrast" not in uncertainty.signals
    both = contrast(scene, {"samples": samples}, uncertainty=uncertainty)
    assert set(both.signals) == {"trajectory", "contrast", "artifact"}
    assert both.artifact_source == "artifact" and uncertainty.artifact_source == "trajectory"
    sampled = scene.uncertain(seed=0)[1]
    assert sampled.artifact_source == "artifact"
    undecided = both.signal("artifact").map - both.signal("contrast").map
    assert (undecided > 0).all()
    trajectory = both.signal("trajectory").map.flatten(1)
    torch.testing.assert_close(
        undecided.flatten(1) / undecided.flatten(1).norm(dim=1, keepdim=True),
        trajectory.sqrt() / trajectory.sqrt().norm(dim=1, keepdim=True),
        rtol=1e-3,
        atol=1e-6,
    )
    assert both.recording is uncertainty.recording
    assert "contrast" not in uncertainty.signals


def test_a_heatmap_needs_no_recording(scene):
    latent = {"samples": torch.randn(1, *scene.latent["samples"].shape[1:])}
    positive = [[scene.positive[0][0][:1], {}]]
    uncertainty = contrast(scene, latent, positive=positive)
    look = {
        **{"signal": "artifact", "display": "overlay", "colormap": "inferno", "scale": "image"},
        **{"opacity": 0.7, "threshold": 90.0, "grow": 0.0, "feather": 0.0},
    }
    picture = scene.host.call("UncertaintyHeatmap", uncertainty=uncertainty, **look).outputs[0]
    assert torch.isfinite(picture).all()


def test_what_is_refused(scene):
    with pytest.raises(ValueError, match="two sides"):
        contrast(scene, scene.latent, negative=[])
    samples, uncertainty = scene.uncertain()
    with pytest.raises(ValueError, match="same run"):
        contrast(
            scene,
            {"samples": samples[:1]},
            positive=[[scene.positive[0][0][:1], {}]],
            uncertainty=uncertainty,
        )


def test_nothing_stays_on_the_model(scene):
    before = {name: dict(value) for name, value in scene.model.wrappers.items()}
    options = dict(scene.model.model_options)
    contrast(scene, {"samples": torch.randn(scene.latent["samples"].shape)})
    assert scene.model.wrappers == before
    assert scene.model.model_options == options


@pytest.mark.parametrize("size", [1e20, 1e30])
def test_latents_beyond_the_range_of_numbers_have_no_contrast(scene, size):
    samples = size * torch.randn(
        scene.latent["samples"].shape, generator=torch.Generator().manual_seed(0)
    )
    with pytest.raises(ValueError, match="contrast of this latent is NaN or infinite"):
        contrast(scene, {"samples": samples})
