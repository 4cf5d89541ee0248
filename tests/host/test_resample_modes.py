"""Noise modes of MaskedResample: where a region starts from."""

from dataclasses import replace

import pytest
import torch

from tests.host.conftest import noise
from tests.host.resampling import left_half, resample

FRESH = ["denoised", "final", "img2img"]
POSTERIOR = ["posterior", "posterior_tangents"]


@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m", "euler_ancestral", "heun"])
@pytest.mark.parametrize("mode", FRESH + POSTERIOR)
def test_outside_stays_whatever_the_start(scene, laplace, mode, sampler_name):
    samples, uncertainty = scene.uncertain(sampler_name=sampler_name, steps=6, contrast=False)
    result, after, report = resample(
        scene, samples, uncertainty, noise_mode=mode, laplace=laplace, mask=left_half(soft=True)
    )
    assert torch.equal(result[..., 8:], samples[..., 8:])
    assert not torch.equal(result[..., :6], samples[..., :6])
    assert torch.isfinite(result).all()
    assert torch.equal(after.recording.final, result)
    assert ("only approximately" in report) == (mode == "img2img")


def test_the_modes_start_from_different_states(scene, laplace):
    samples, uncertainty = scene.uncertain(contrast=False)
    found = [
        resample(scene, samples, uncertainty, noise_mode=mode, laplace=laplace)[0]
        for mode in FRESH + POSTERIOR
    ]
    for i, one in enumerate(found):
        assert all(not torch.equal(one, other) for other in found[:i])
    default, _, _ = resample(scene, samples, uncertainty)
    assert torch.equal(default, found[0])


def first_states(scene, samples, uncertainty, **changes):
    """The first state the network sees, in the space of the sampler."""
    network, seen = scene.model.model.diffusion_model.network, []
    handle = network.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    try:
        resample(scene, samples, uncertainty, candidates=1, **changes)
    finally:
        handle.remove()
    return seen[0][: len(samples)]


def test_the_start_is_the_final_image_noised_to_the_level_of_its_step(scene):
    samples, uncertainty = scene.uncertain(contrast=False)
    step, _ = uncertainty.recording.start_of(0.7)
    sigma = uncertainty.recording.schedule[step]
    fresh = noise(samples.shape, 1)
    expected = (1 - sigma) * samples + sigma * fresh
    for mode in ("final", "img2img"):
        state = first_states(scene, samples, uncertainty, noise_mode=mode)
        torch.testing.assert_close(state[..., :8], expected[..., :8])
        # Plain inpainting noises the surroundings too; else they are the recorded ones.
        recorded = uncertainty.recording.states[step]
        outside = expected if mode == "img2img" else recorded
        torch.testing.assert_close(state[..., 8:], outside[..., 8:])


def test_a_surer_posterior_moves_the_image_less(scene, laplace):
    """A hundred times the std moves the start a hundred times as far, and the result about so."""
    samples, uncertainty = scene.uncertain(contrast=False)
    changes = []
    for factor in (1.0, 1e-4):
        posterior = replace(
            laplace,
            precision=laplace.precision * factor,
            prior_precision=laplace.prior_precision * factor,
        )
        result, _, _ = resample(
            scene, samples, uncertainty, noise_mode="posterior_tangents", laplace=posterior
        )
        changes.append((result - samples).square().mean().sqrt().item())
    assert changes[1] > 20 * changes[0] > 0


@pytest.mark.parametrize("mode", POSTERIOR)
def test_posterior_modes_say_what_they_need(scene, laplace, mode, monkeypatch):
    samples, uncertainty = scene.uncertain(contrast=False)
    patched = scene.model.clone()
    key = "diffusion_model.network.out.2.weight"
    weight = scene.model.model.diffusion_model.network.out[2].weight
    patched.add_patches({key: ("diff", (0.1 * noise(weight.shape, 1),))})
    with pytest.raises(ValueError, match="Run LaplaceFit on the model you sample with"):
        resample(scene, samples, uncertainty, model=patched, noise_mode=mode, laplace=laplace)
    with pytest.raises(ValueError, match="Lower denoise"):
        resample(scene, samples, uncertainty, noise_mode=mode, laplace=laplace, denoise=1.0)

    def never(*_args, **_kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(scene.model.model.diffusion_model, "forward", never)
    with pytest.raises(ValueError, match=f"{mode} moves .* connect a LAPLACE"):
        resample(scene, samples, uncertainty, noise_mode=mode)
    with pytest.raises(ValueError, match=f"{mode} moves a recorded state"):
        resample(scene, samples, uncertainty, noise_mode=mode, laplace=laplace, scheduler="karras")
