"""Nothing of ours stays on the user's model or in the host: after success, error and cancel."""

import pytest
import torch


def fingerprint_of_the_host(model):
    """Everything that we could have touched."""
    from comfy.k_diffusion import sampling

    modules = list(model.model.modules())
    return {
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules),
        "wrappers": repr(model.wrappers),
        "options": repr(model.model_options),
        "callbacks": repr(model.callbacks),
        "patches": repr(model.object_patches),
        "functions": [
            sampling.default_noise_sampler,
            sampling.BrownianTreeNoiseSampler,
            sampling.torch,
        ],
        "weights": [p.sum().item() for p in model.model.parameters()],
    }


@pytest.fixture
def unchanged(scene):
    before = fingerprint_of_the_host(scene.model)
    yield
    assert fingerprint_of_the_host(scene.model) == before
    # And the model still does what it did.
    assert torch.equal(scene.ksampler(), scene.ksampler())


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_sde", "euler_ancestral_cfg_pp"])
def test_after_success(scene, laplace, sampler_name):
    scene.uncertain(sampler_name=sampler_name, laplace=laplace)
    scene.fit()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("failing", [1, 3, 5, 7])
def test_after_an_error_in_any_call(scene, laplace, monkeypatch, failing):
    network = scene.model.model.diffusion_model.network
    original, calls = network.forward, []

    def fail(*args, **kwargs):
        calls.append(1)
        if len(calls) == failing:
            raise RuntimeError("the network fails")
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(network, "forward", fail)
        with pytest.raises(RuntimeError, match="the network fails"):
            scene.uncertain(laplace=laplace, preset="accurate", sampler_name="dpmpp_sde")
        calls.clear()
        with pytest.raises(RuntimeError, match="the network fails"):
            scene.fit(draws=8)


@pytest.mark.usefixtures("unchanged")
def test_after_cancel(scene, laplace, monkeypatch):
    import comfy.model_management
    import comfy.utils

    interrupt = comfy.model_management.InterruptProcessingException

    def cancel(value, total, preview, node_id=None):
        comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
    with pytest.raises(interrupt):
        scene.uncertain(laplace=laplace)
    with pytest.raises(interrupt):
        scene.fit()
