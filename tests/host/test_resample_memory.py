"""MaskedResample where memory is short: the same result by smaller calls, or a sentence."""

import pytest
import torch

from tests.host.resampling import left_half, resample
from tests.host.test_traces_left import fingerprint_of_the_host


@pytest.fixture
def limited(scene, monkeypatch):
    """Lets the network hold so many rows at a time; returns the sizes it was called with."""
    network = scene.model.model.diffusion_model.network
    original = network.forward

    def limit(rows):
        sizes = []

        def forward(x, *args, **kwargs):
            if len(x) > rows:
                raise torch.cuda.OutOfMemoryError("out of memory")
            sizes.append(len(x))
            return original(x, *args, **kwargs)

        monkeypatch.setattr(network, "forward", forward)
        return sizes

    before = fingerprint_of_the_host(scene.model)
    conds = [scene.positive[0][0].clone(), scene.negative[0][0].clone()]
    yield limit
    monkeypatch.undo()
    assert fingerprint_of_the_host(scene.model) == before
    assert torch.equal(scene.positive[0][0], conds[0])
    assert torch.equal(scene.negative[0][0], conds[1])


@pytest.mark.parametrize("rows", [6, 12, 18])
@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m_sde", "euler_ancestral_cfg_pp"])
def test_the_result_does_not_depend_on_what_fits(scene, limited, sampler_name, rows):
    """Noise of solvers that draw some included: three images, two sides, five candidates."""
    samples, uncertainty = scene.uncertain(sampler_name=sampler_name, contrast=False)
    changes = {"rule": "all", "candidates": 5}
    whole, judged, _ = resample(scene, samples, uncertainty, **changes)
    sizes = limited(rows)
    parts, after, _ = resample(scene, samples, uncertainty, **changes)
    assert max(sizes) <= rows
    # Networks round differently in smaller batches.
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    for name in ("contrast", "trajectory"):
        torch.testing.assert_close(
            after.signal(name).map, judged.signal(name).map, rtol=1e-3, atol=1e-4
        )


def test_guidance_sees_all_candidates_however_little_fits(scene, monkeypatch):
    """Guidance functions with a momentum remember what they saw: parts would mix it up."""
    import comfy.model_management

    seen = []

    def momentum(args):
        seen.append(len(args["cond"]))
        return args["uncond"] + 3.0 * (args["cond"] - args["uncond"])

    model = scene.model.clone()
    model.set_model_sampler_cfg_function(momentum)
    samples, uncertainty = scene.uncertain(model=model, contrast=False)
    whole, _, _ = resample(scene, samples, uncertainty, model=model, candidates=5)
    seen.clear()
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: 1.0)
    parts, _, _ = resample(scene, samples, uncertainty, model=model, candidates=5)
    assert set(seen) == {5 * len(samples)}
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_contrast_begins_with_what_fitted_the_run(scene, limited):
    samples, uncertainty = scene.uncertain(contrast=False)
    sizes = limited(12)
    resample(scene, samples, uncertainty, rule="contrast", candidates=4)
    levels = len(scene.host.module("bayesdiff_core.signals").CONTRAST_LEVELS)
    # Two candidates at a time, two sides of three images each, then the original.
    assert sizes[-3 * levels :] == [12, 12, 6] * levels


@pytest.mark.parametrize("rule", ["contrast", "trajectory"])
def test_one_candidate_too_many_is_said_in_a_sentence(scene, limited, rule):
    import comfy.model_management

    samples, uncertainty = scene.uncertain(contrast=False)
    limited(5)
    with pytest.raises(comfy.model_management.OOM_EXCEPTION, match="even one candidate of 3 im"):
        resample(scene, samples, uncertainty, rule=rule)


def test_the_host_is_asked_which_errors_are_of_memory(scene, limited, monkeypatch):
    """Newer hosts count errors of the accelerator in; other errors are nobody's business."""
    import comfy.model_management

    samples, uncertainty = scene.uncertain(contrast=False)
    monkeypatch.setattr(comfy.model_management, "is_oom", lambda _e: False, raising=False)
    limited(6)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="^out of memory$"):
        resample(scene, samples, uncertainty)


@pytest.mark.parametrize("mode", ["posterior", "posterior_tangents"])
def test_moves_of_the_posterior_come_in_parts_too(scene, laplace, limited, mode):
    samples, uncertainty = scene.uncertain(contrast=False)
    changes = {"noise_mode": mode, "laplace": laplace}
    whole, _, _ = resample(scene, samples, uncertainty, **changes)
    sizes = limited(6)
    parts, _, _ = resample(scene, samples, uncertainty, **changes)
    assert max(sizes) == 6
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["denoised", "posterior"])
def test_rounds_whose_recording_does_not_fit_say_what_they_do(scene, laplace, mode):
    """A second round is then like that of a latent without a recording, if there can be one."""
    repair = scene.host.module("nodes.host.resample.plan").ResampleOptions(
        candidates=2, rule="trajectory", keep_original=False, rounds=2, budget_mb=0.001,
        noise_mode=mode, posterior=laplace,
    )  # fmt: skip
    resample_latents = scene.host.module("nodes.masked_resample").resample_latent
    samples, uncertainty = scene.uncertain(contrast=False)
    with torch.inference_mode():
        latent, after, report = resample_latents(
            scene.model, {"samples": samples}, uncertainty, left_half(), scene.positive,
            scene.negative, repair,
        )  # fmt: skip
    assert torch.equal(latent["samples"][..., 8:], samples[..., 8:])
    assert after.recording is None
    assert ("round 2: " in report) == (mode == "denoised")
    assert ("only approximately" in report) == (mode == "denoised")
    assert ("did not fit into its budget" in report) == (mode == "posterior")
