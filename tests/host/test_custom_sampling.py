"""The advanced and the custom sampler: parts of a schedule, any guider, any sampler object."""

import pytest
import torch

from tests.host.conftest import noise


def advanced(scene, node_id, **changes):
    inputs = scene.inputs(steps=6)
    inputs["noise_seed"] = inputs.pop("seed")
    del inputs["denoise"]
    inputs.update(
        add_noise="enable",
        start_at_step=0,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )
    inputs.update(changes)
    return scene.host.call(node_id, **inputs).outputs


PARTS = [
    {},
    {"end_at_step": 4},
    {"end_at_step": 4, "return_with_leftover_noise": "enable"},
    {"start_at_step": 2, "add_noise": "disable"},
    {"start_at_step": 1, "end_at_step": 3, "sampler_name": "dpmpp_2m_sde"},
]


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_a_schedule_are_the_stock_ones(scene, laplace, part):
    start = {"samples": noise(scene.latent["samples"].shape, 1)}
    inputs = {"latent_image": start, **part}
    (stock,) = advanced(scene, "KSamplerAdvanced", **inputs)
    ours, uncertainty, *_ = advanced(
        scene, "BayesDiffUncertainKSamplerAdvanced", laplace=laplace, **inputs
    )
    assert torch.equal(ours["samples"], stock["samples"])
    assert torch.isfinite(uncertainty.latent_std).all()
    leftover = part.get("return_with_leftover_noise") == "enable"
    assert ("contrast" in uncertainty.names) != leftover


def test_a_start_behind_the_end_is_refused(scene):
    with pytest.raises(ValueError, match="Step 5 is not before the last one, 4"):
        advanced(scene, "BayesDiffUncertainKSamplerAdvanced", start_at_step=5, end_at_step=4)


def custom(scene, node_id, guider, sampler, **changes):
    inputs = {
        "noise": scene.host.call("RandomNoise", noise_seed=4).outputs[0],
        "guider": guider,
        "sampler": sampler,
        "sigmas": torch.tensor([1.0, 0.8, 0.5, 0.3, 0.0]),
        "latent_image": scene.latent,
        **changes,
    }
    return scene.host.call(node_id, **inputs).outputs


def guiders(scene):
    call, model = scene.host.call, scene.model
    other = [[scene.positive[0][0].flip(0), {}]]
    (rescaled,) = call("RescaleCFG", model=model, multiplier=0.7).outputs
    (momentum,) = call("APG", model=model, eta=0.7, norm_threshold=3.0, momentum=-0.3).outputs
    (zero_star,) = call("CFGZeroStar", model=model).outputs
    plain = {"positive": scene.positive, "negative": scene.negative, "cfg": 3.0}
    return {
        "basic": call("BasicGuider", model=model, conditioning=scene.positive),
        "cfg": call("CFGGuider", model=model, **plain),
        "dual": call(
            "DualCFGGuider", model=model, cond1=scene.positive, cond2=other, cfg_conds=2.0,
            negative=scene.negative, cfg_cond2_negative=3.0, style="regular",
        ),
        "perpneg": call(
            "PerpNegGuider", model=model, positive=scene.positive, negative=other,
            empty_conditioning=scene.negative, cfg=3.0, neg_scale=1.0,
        ),
        "rescaled": call("CFGGuider", model=rescaled, **plain),
        "momentum": call("CFGGuider", model=momentum, **plain),
        "zero-star": call("CFGGuider", model=zero_star, **plain),
    }  # fmt: skip


GUIDERS = ["basic", "cfg", "dual", "perpneg", "rescaled", "momentum", "zero-star"]


@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m_sde"])
@pytest.mark.parametrize("name", GUIDERS)
def test_any_guider_gives_the_stock_latent_and_a_variance(scene, laplace, name, sampler_name):
    """Also those that remember earlier steps: what we ask in between must leave no trace."""
    sampler = scene.host.call("KSamplerSelect", sampler_name=sampler_name).outputs[0]
    stock = custom(scene, "SamplerCustomAdvanced", guiders(scene)[name].outputs[0], sampler)
    latent, denoised, uncertainty, *_ = custom(
        scene, "BayesDiffUncertainSamplerCustom", guiders(scene)[name].outputs[0], sampler,
        laplace=laplace, preset="accurate",
    )  # fmt: skip
    assert torch.equal(latent["samples"], stock[0]["samples"])
    assert torch.equal(denoised["samples"], stock[1]["samples"])
    std = uncertainty.latent_std
    assert torch.isfinite(std).all() and (std > 0).all()


def test_options_of_a_sampler_object_are_kept(scene):
    (sampler,) = scene.host.call(
        "SamplerDPMPP_2M_SDE", solver_type="heun", eta=0.4, s_noise=0.9, noise_device="cpu"
    ).outputs
    (guider,) = scene.host.call(
        "CFGGuider", model=scene.model, positive=scene.positive, negative=scene.negative, cfg=2.0
    ).outputs
    stock, _ = custom(scene, "SamplerCustomAdvanced", guider, sampler)
    latent, _, uncertainty, *_ = custom(scene, "BayesDiffUncertainSamplerCustom", guider, sampler)
    assert torch.equal(latent["samples"], stock["samples"])
    assert uncertainty.settings.sampler_name == "dpmpp_2m_sde"
    assert uncertainty.settings.sampler_options["eta"] == 0.4


def test_an_unknown_kind_of_sampler_is_refused(scene):
    import comfy.samplers

    class Strange(comfy.samplers.Sampler):
        pass

    (guider,) = scene.host.call(
        "BasicGuider", model=scene.model, conditioning=scene.positive
    ).outputs
    with pytest.raises(ValueError, match="The sampler Strange does not work step by step"):
        custom(scene, "BayesDiffUncertainSamplerCustom", guider, Strange())
