"""What a person is told when inputs do not fit, and when: before the model runs."""

import importlib.util
import sys

import pytest
import torch

from tests.host.tiny import tiny_scene
from tests.support.host_location import ROOT


@pytest.fixture
def silent(scene, monkeypatch):
    """A model that must not be asked to draw anything."""

    def never(*_args, **_kwargs):
        raise AssertionError("the model ran")

    def arm():
        monkeypatch.setattr(scene.model.model.diffusion_model, "forward", never)

    return arm


def test_a_posterior_of_another_model_is_refused(scene, laplace, silent):
    module = scene.host.module("bayesdiff_core.laplace")
    other = module.LaplacePosterior(
        laplace.precision, 1.0, 1.0, laplace.rows, 1, fingerprint="other.layer:1x2:00"
    )
    scene.uncertain(laplace=laplace)
    silent()
    with pytest.raises(ValueError, match=r"other\.layer:1x2:00.*network\.out\.2") as raised:
        scene.uncertain(laplace=other)
    assert "Run LaplaceFit on the model you sample with" in str(raised.value)


def test_a_latent_with_nan_is_refused(scene, silent):
    samples = scene.latent["samples"].clone()
    samples[0, 0, 0, 0] = float("nan")
    silent()
    with pytest.raises(ValueError, match="1 values that are NaN"):
        scene.uncertain(latent_image={"samples": samples})
    with pytest.raises(ValueError, match="1 values that are NaN"):
        scene.fit(latents={"samples": samples})


def test_prompts_and_latents_of_different_number_are_refused(scene, silent):
    silent()
    two = [[scene.positive[0][0][:2], {}]]
    for inputs, words in (({"positive": two}, "positive"), ({"negative": two}, "negative")):
        with pytest.raises(ValueError, match=f"{words} holds 2 prompts but there are 3 latents"):
            scene.uncertain(**inputs)
    with pytest.raises(ValueError, match="conditioning holds 2 prompts"):
        scene.fit(conditioning=two)


def test_fitting_on_an_empty_latent_is_refused(scene, silent):
    silent()
    with pytest.raises(ValueError, match="all zero"):
        scene.fit(latents=scene.latent)


def test_denoise_zero_is_refused(scene, silent):
    silent()
    with pytest.raises(ValueError, match="denoise 0"):
        scene.uncertain(denoise=0.0)


def uncertain_custom(scene, sampler):
    """The custom node with a sampler of one's own."""
    call = scene.host.call
    (noise_source,) = call("RandomNoise", noise_seed=0).outputs
    (guider,) = call("BasicGuider", model=scene.model, conditioning=scene.positive).outputs
    return call(
        "BayesDiffUncertainSamplerCustom", noise=noise_source, guider=guider, sampler=sampler,
        sigmas=torch.linspace(1, 0, 5), latent_image=scene.latent,
    )  # fmt: skip


def test_a_sampler_that_changes_the_size_is_refused(scene, silent):
    (sampler,) = scene.host.call(
        "SamplerLCMUpscale", scale_ratio=2.0, scale_steps=-1, upscale_method="bilinear"
    ).outputs
    silent()
    with pytest.raises(ValueError, match="changes the size of the latent"):
        uncertain_custom(scene, sampler)


def test_a_sampler_for_video_alone_is_refused(scene, silent):
    import comfy.samplers

    def sample_by_frames(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return torch.stack([model(frame, sigmas[:1]) for frame in x.unbind(4)], 4)

    silent()
    with pytest.raises(ValueError, match="'sample_by_frames' does not run on a single number"):
        uncertain_custom(scene, comfy.samplers.KSAMPLER(sample_by_frames))


@pytest.mark.parametrize("node_id", ["EasyCache", "LazyCache"])
def test_caches_are_fine_alone_but_not_with_a_posterior(host, node_id):
    # One latent: EasyCache of ComfyUI 0.3.64 fails on more where both prompts share a call.
    scene = tiny_scene(host, "unet", batch=1)
    (cached,) = host.call(
        node_id, model=scene.model, reuse_threshold=0.5, start_percent=0.1, end_percent=0.95,
        verbose=False,
    ).outputs  # fmt: skip
    inputs = {"model": cached, "steps": 8}
    stock = scene.ksampler(**inputs)
    assert not torch.equal(stock, scene.ksampler(steps=8)), "the cache was never used"
    assert torch.equal(scene.uncertain(**inputs)[0], stock)
    laplace = scene.fit()
    with pytest.raises(ValueError, match="EasyCache and LazyCache leave out calls"):
        scene.uncertain(**inputs, laplace=laplace)
    with pytest.raises(ValueError, match="EasyCache and LazyCache leave out calls"):
        scene.fit(model=cached)


def test_a_host_without_the_nodes_api_is_told_what_is_needed(host, monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy_api.latest", None)  # as if it were not there
    spec = importlib.util.spec_from_file_location("bayesdiff_on_an_old_host", ROOT / "__init__.py")
    with pytest.raises(ImportError, match=r"needs ComfyUI 0\.3\.60 or newer"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_model_on_several_devices_is_refused_with_a_posterior(scene, laplace):
    model = scene.model.clone()
    # What newer hosts put there when a model has a copy on another device.
    model.model_options["multigpu_clones"] = {model.load_device: model}
    with pytest.raises(ValueError, match="spread over several devices"):
        scene.uncertain(model=model, laplace=laplace)
    with pytest.raises(ValueError, match="spread over several devices"):
        scene.fit(model=model)


def test_a_foreign_prompt_is_refused_in_words(scene):
    with pytest.raises(ValueError, match="BayesDiffDemoPrompt"):
        scene.uncertain(positive=[[torch.zeros(1, 77, 768), {}]])
    with pytest.raises(ValueError, match="'1 2 x 4' is no prompt of this model. Write 4 of: 0, 1"):
        scene.host.call("BayesDiffDemoPrompt", model=scene.model, text="1 2 x 4")


def digits_prompt(text="3 1 4 1", steps=2):
    """Sample the bundled digits model and look at the picture."""
    return {
        "1": {"class_type": "BayesDiffDemoModel", "inputs": {"name": "digits"}},
        "2": {"class_type": "BayesDiffDemoPrompt", "inputs": {"model": ["1", 0], "text": text}},
        "3": {"class_type": "BayesDiffDemoLatent", "inputs": {"model": ["1", 0], "batch_size": 1}},
        "4": {
            "class_type": "UncertainKSampler",
            "inputs": {
                "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0],
                "latent_image": ["3", 0], "seed": 0, "steps": steps, "cfg": 1.0,
                "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 1]}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }  # fmt: skip


def test_the_error_dialog_shows_our_sentence(server):
    """As the page gets it: the sentence, and the node that said it."""
    execution = server.queue(digits_prompt(text="1 2"), check=False)
    assert execution.error["node_id"] == "2"
    assert (
        "'1 2' is no prompt of this model. Write 4 of: 0, 1"
        in (execution.error["exception_message"])
    )


def test_sampling_can_be_cancelled_from_the_page(server):
    def interrupt(message):
        if message["type"] == "progress" and message["data"]["node"] == "4":
            server.post("/interrupt")

    execution = server.queue(digits_prompt(steps=400), check=False, on_message=interrupt)
    assert execution.status == "interrupted"
    assert 0 < len(execution.progress("4")) < 400
    assert server.queue(digits_prompt(steps=3)).status == "success"
