"""UncertainKSampler makes KSampler's latent, to the bit, and leaves nothing behind."""

import pytest
import torch

from tests.host.conftest import noise

TYPICAL = ["euler", "dpmpp_2m", "euler_ancestral", "dpmpp_sde", "uni_pc", "euler_cfg_pp"]


def image_to_image(scene):
    """A latent to start from, with a mask that leaves its left half alone."""
    mask = torch.zeros(1, 16, 16)
    mask[:, :, 8:] = 1
    samples = 0.5 * noise(scene.latent["samples"].shape, 1)
    return {"samples": samples, "noise_mask": mask}


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("sampler_name", TYPICAL)
def test_latent_is_the_stock_one(scene, laplace, sampler_name, cfg):
    stock = scene.ksampler(sampler_name=sampler_name, cfg=cfg)
    plain, _ = scene.uncertain(sampler_name=sampler_name, cfg=cfg)
    assert torch.equal(plain, stock)
    with_posterior, uncertainty = scene.uncertain(
        sampler_name=sampler_name, cfg=cfg, laplace=laplace, preset="accurate"
    )
    assert torch.equal(with_posterior, stock)
    std = uncertainty.latent_std
    assert std.shape == stock.shape
    assert torch.isfinite(std).all() and (std > 0).all()


@pytest.mark.parametrize("sampler_name", ["ddim", "dpmpp_2m_sde", "heun"])
def test_masked_latent_is_the_stock_one_and_certain_where_it_is_kept(scene, laplace, sampler_name):
    inputs = {"sampler_name": sampler_name, "latent_image": image_to_image(scene), "denoise": 0.6}
    samples, uncertainty = scene.uncertain(**inputs, laplace=laplace)
    assert torch.equal(samples, scene.ksampler(**inputs))
    assert uncertainty.latent_std[..., :8].abs().max() == 0
    assert (uncertainty.latent_std[..., 8:] > 0).all()


def test_an_empty_latent_of_another_model_is_fitted_as_the_stock_node_does(scene):
    """To the channels; newer hosts also to the scale that the latent says it was made for."""
    (empty,) = scene.host.call("EmptyLatentImage", width=64, height=64, batch_size=3).outputs
    inputs = scene.inputs(latent_image=empty)
    (stock,) = scene.host.call("KSampler", **inputs).outputs
    ours = scene.host.call("UncertainKSampler", **inputs).outputs[0]
    assert ours.keys() == stock.keys()
    assert torch.equal(ours["samples"], stock["samples"])


def test_a_sample_whose_mask_is_empty_is_certain(scene, laplace):
    mask = torch.ones(3, 16, 16)
    mask[1] = 0
    samples = 0.5 * noise(scene.latent["samples"].shape, 1)
    latent = {"samples": samples, "noise_mask": mask}
    _, uncertainty = scene.uncertain(latent_image=latent, laplace=laplace, denoise=0.6)
    assert uncertainty.latent_std[1].abs().max() == 0
    assert (uncertainty.latent_std[[0, 2]] > 0).all()


def test_a_mask_that_opens_step_by_step(scene, laplace):
    """Differential diffusion frees more of the latent as the noise falls."""
    (model,) = scene.host.call("DifferentialDiffusion", model=scene.model, strength=1.0).outputs
    mask = torch.linspace(0, 1, 16).expand(1, 16, 16).clone()
    mask[..., :4] = 0
    latent = {"samples": 0.5 * noise(scene.latent["samples"].shape, 1), "noise_mask": mask}
    inputs = {"model": model, "latent_image": latent, "steps": 6}
    samples, uncertainty = scene.uncertain(**inputs, laplace=laplace)
    assert torch.equal(samples, scene.ksampler(**inputs))
    assert uncertainty.latent_std[..., :4].abs().max() == 0
    assert (uncertainty.latent_std[..., -4:] > 0).all()


def test_batch_index_and_seed_choose_the_noise_as_in_the_stock_node(scene):
    latent = {**scene.latent, "batch_index": [4, 0, 2]}
    samples, _ = scene.uncertain(latent_image=latent, seed=11)
    assert torch.equal(samples, scene.ksampler(latent_image=latent, seed=11))
    assert not torch.equal(samples, scene.ksampler(seed=11))


def test_samples_do_not_see_each_other(scene, laplace):
    """A batch of three prompts is three batches of one: features line up with their samples."""
    _, together = scene.uncertain(laplace=laplace)
    for b in range(3):
        latent = {"samples": scene.latent["samples"][:1], "batch_index": [b]}
        positive = [[scene.positive[0][0][b : b + 1], {}]]
        _, alone = scene.uncertain(latent_image=latent, positive=positive, laplace=laplace)
        for name in ("posterior", "trajectory"):
            torch.testing.assert_close(
                together.signal(name).map[b : b + 1], alone.signal(name).map, rtol=2e-3, atol=1e-6
            )


def test_without_a_posterior_the_free_signals_still_come(scene):
    _, uncertainty = scene.uncertain()
    assert uncertainty.names == ["artifact", "trajectory", "contrast"]
    _, uncertainty = scene.uncertain(contrast=False)
    assert uncertainty.names == ["artifact", "trajectory"]
    with pytest.raises(ValueError, match="LaplaceFit"):
        uncertainty.signal("posterior")


def test_recording_ends_in_the_latent(scene):
    samples, uncertainty = scene.uncertain(sampler_name="dpmpp_2m")
    recording = uncertainty.recording
    assert torch.equal(recording.final, samples)
    assert recording.states.shape == (4, *samples.shape)
    small, uncertainty = scene.uncertain(sampler_name="dpmpp_2m", recording_mb=0)
    assert torch.equal(small, samples)
    assert uncertainty.recording is None
    assert "budget" in uncertainty.settings.recording_note


def test_previews_and_progress_are_those_of_the_stock_node(scene, monkeypatch):
    import comfy.utils

    seen = {"stock": [], "ours": []}

    def watch(name):
        monkeypatch.setattr(
            comfy.utils,
            "PROGRESS_BAR_HOOK",
            lambda value, total, preview, node_id=None: seen[name].append((value, total)),
        )

    watch("stock")
    scene.ksampler()
    watch("ours")
    scene.uncertain()
    steps = [(i + 1, 4) for i in range(4)]
    assert seen["stock"] == steps
    # What comes after the image has a bar of its own: six levels of contrast.
    assert seen["ours"] == [*steps, *((i + 1, 6) for i in range(6))]
