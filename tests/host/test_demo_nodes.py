"""The bundled networks as models of the host."""

import pytest
import torch

from demo.evaluate import sample
from tests.host.conftest import Scene, noise, random_network


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_host_samples_what_the_network_samples_without_it(host, scene, cfg):
    network = random_network(host, channels=2)
    labels = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8]])
    plain = sample(network, labels, cfg, steps=5, seed=5)
    torch.testing.assert_close(scene.ksampler(cfg=cfg, steps=5), plain, rtol=1e-4, atol=1e-5)


def test_an_empty_prompt_is_the_null_label_and_so_is_a_zeroed_one(scene):
    assert (scene.negative[0][0] == 0).all()
    (zeroed,) = scene.host.call(
        "ConditioningZeroOut", conditioning=[[scene.positive[0][0], {}]]
    ).outputs
    assert torch.equal(scene.ksampler(negative=zeroed), scene.ksampler(negative=scene.negative))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_go_through_the_vae_unchanged(host, channels):
    vae = host.module("nodes.host.demo_models").pixel_vae(channels)
    latent = {"samples": torch.tanh(noise((2, channels, 16, 16), 1))}
    (image,) = host.call("VAEDecode", samples=latent, vae=vae).outputs
    assert image.shape == (2, 16, 16, 3)
    (back,) = host.call("VAEEncode", pixels=image, vae=vae).outputs
    torch.testing.assert_close(back["samples"], latent["samples"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_previews_show_the_picture(host, channels):
    import latent_preview

    latent_format = host.module("nodes.host.demo_models").PixelFormat(channels)
    factors = latent_format.latent_rgb_factors
    preview = latent_preview.Latent2RGBPreviewer(factors).decode_latent_to_preview
    image = preview(torch.full((1, channels, 4, 4), 0.5))
    assert image.size == (4, 4)
    assert image.getpixel((1, 1)) == (191, 191, 191)


@pytest.mark.parametrize(("name", "text"), [("digits", "3 1 4 1\n0 0 7 9"), ("emoji", None)])
def test_bundled_models_run_through_all_four_nodes(host, name, text):
    bundle = host.module("demo.bundle")
    if not (bundle.MODELS / f"{name}.safetensors").is_file():
        pytest.skip("not trained yet")
    model, vae = host.call("BayesDiffDemoModel", name=name).outputs
    names = host.module("nodes.host.demo_models").demo_config(model).class_names
    text = text or "\n".join(names[:2])
    prompts = [
        host.call("BayesDiffDemoPrompt", model=model, text=words).outputs[0]
        for words in (text, "")
    ]
    (empty,) = host.call("BayesDiffDemoLatent", model=model, batch_size=2).outputs
    scene = Scene(host, model, *prompts, empty)
    samples = scene.ksampler(steps=10, cfg=1.5)
    assert samples.abs().quantile(0.99) < 1.3, "a picture lies in [-1, 1]"
    assert samples.std() > 0.2
    laplace = scene.fit(latents={"samples": samples})
    latent, uncertainty = scene.uncertain(steps=10, cfg=1.5, laplace=laplace)
    assert torch.equal(latent, samples)
    assert uncertainty.names == ["artifact", "trajectory", "contrast", "posterior"]
    (image,) = host.call("VAEDecode", samples={"samples": latent}, vae=vae).outputs
    assert image.shape[-1] == 3 and image.min() >= 0 and image.max() <= 1
