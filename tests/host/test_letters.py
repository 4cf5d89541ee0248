"""The latent-space model: the host's own loaders take its files, and compute what we compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from demo.evaluate import sample
from tests.host.conftest import Scene, noise
from tests.host.tiny import tiny_scene
from tests.support.host import Host

LETTERS = tuple("ABCDEFGHKMNPRSTX")


@pytest.fixture
def random_files(host: Host, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Networks in which every weight matters, written where the bundled ones lie."""
    bundle = host.module("demo.bundle")
    monkeypatch.setattr(bundle, "MODELS", tmp_path)
    transformer = host.module("demo.transformer")
    autoencoder = host.module("demo.autoencoder")
    config = transformer.TransformerConfig("letters", 16, 16, (2, 2), LETTERS, depth=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformer.SceneTransformer(config)
        vae = autoencoder.Autoencoder(8)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    bundle.save_model(network)
    fields = {"width": 8, "latent_channels": 16}
    bundle.save_weights("letters_vae", autoencoder.pad(vae.state_dict()), fields)
    return bundle


@torch.inference_mode()
def test_the_hosts_transformer_computes_the_same_velocity(host: Host, random_files) -> None:
    network, config = random_files.load_model("letters")
    model = host.module("nodes.host.demo_models").load_transformer(
        random_files.weights_path("letters")
    )
    labels = torch.tensor([[0, 5, 15, 3], [16, 16, 16, 16]])
    ((context, extras),) = host.module("nodes.host.demo_models").labels_conditioning(
        config, labels
    )
    x, t = noise((2, *config.sample_shape), 1), torch.tensor([0.9, 0.2])
    diffusion_model = model.model.diffusion_model.float()
    theirs = diffusion_model(x, 1000 * t, context, extras["pooled_output"])
    torch.testing.assert_close(theirs, network(x, t, labels), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_hosts_vae_computes_the_same_pictures_and_latents(host: Host, random_files) -> None:
    autoencoder = random_files.load_autoencoder("letters_vae")
    vae = host.module("nodes.host.demo_models").load_vae(random_files.weights_path("letters_vae"))
    latent_format = host.module("nodes.host.demo_models").comfy.latent_formats.SD3()
    z = noise((2, 16, 4, 4), 1)
    image = vae.decode(latent_format.process_out(z))
    expected = autoencoder.decode(z).movedim(1, -1) / 2 + 0.5
    torch.testing.assert_close(image, expected.clamp(0, 1), rtol=1e-3, atol=1e-3)
    back = latent_format.process_in(vae.encode(image))
    ours = autoencoder.encode(image.movedim(-1, 1) * 2 - 1)
    torch.testing.assert_close(back, ours, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def bundled(host: Host) -> tuple[Scene, Any]:
    """The bundled model with prompts for two scenes, and its VAE."""
    model, vae = host.call("BayesDiffDemoModel", name="letters").outputs
    positive, negative = (
        host.call("BayesDiffDemoPrompt", model=model, text=text).outputs[0]
        for text in ("B A K E\nf r e t", "")
    )
    (latent,) = host.call("BayesDiffDemoLatent", model=model, batch_size=2).outputs
    return Scene(host, model, positive, negative, latent), vae


def labels_of(bundle: Any, lines: list[str]) -> torch.Tensor:
    names = bundle.load_config("letters").class_names
    return torch.tensor([[names.index(letter) for letter in line.split()] for line in lines])


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_host_samples_what_the_network_samples_without_it(host: Host, bundled, cfg: float) -> None:
    """From the same noise, on the host's schedule, through the host's latents and VAE."""
    bundle = host.module("demo.bundle")
    scene, vae = bundled
    samples = scene.ksampler(cfg=cfg, steps=5)
    network, _ = bundle.load_model("letters")
    labels = labels_of(bundle, ["B A K E", "F R E T"])
    ours = sample(network, labels, cfg, steps=5, seed=5)
    theirs = scene.model.model.process_latent_in(samples)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
    (image,) = host.call("VAEDecode", samples={"samples": samples}, vae=vae).outputs
    picture = bundle.load_decoder("letters")(ours).movedim(1, -1) / 2 + 0.5
    assert image.shape == (2, 128, 128, 3)
    torch.testing.assert_close(image, picture.clamp(0, 1), rtol=0, atol=5e-3)


def test_uncertainty_changes_no_bit_of_the_latent(bundled) -> None:
    scene, _ = bundled
    samples = scene.ksampler(steps=8, cfg=1.5)
    latents = {"samples": samples}
    laplace = scene.fit(latents=latents)
    assert (laplace.rows, laplace.features) == (2 * 2 * 16, 128 + 1)
    latent, uncertainty = scene.uncertain(steps=8, cfg=1.5, laplace=laplace)
    assert torch.equal(latent, samples)
    assert uncertainty.names == ["artifact", "trajectory", "contrast", "posterior"]
    posterior = uncertainty.signal("posterior").map
    assert posterior.shape == (2, 16, 16)
    assert (posterior > 0).all()


def test_an_empty_prompt_is_a_zeroed_one(host: Host, bundled) -> None:
    scene, _ = bundled
    (zeroed,) = host.call("ConditioningZeroOut", conditioning=scene.positive).outputs
    assert torch.equal(
        scene.ksampler(negative=zeroed, steps=2), scene.ksampler(negative=scene.negative, steps=2)
    )


def test_the_hosts_own_loader_nodes_take_the_files(host: Host, bundled) -> None:
    bundle = host.module("demo.bundle")
    scene, _ = bundled
    for folder, name in (("diffusion_models", "letters"), ("vae", "letters_vae")):
        target = host.base_directory / "models" / folder
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{name}.safetensors").symlink_to(bundle.weights_path(name))
    (model,) = host.call(
        "UNETLoader", unet_name="letters.safetensors", weight_dtype="default"
    ).outputs
    (vae,) = host.call("VAELoader", vae_name="letters_vae.safetensors").outputs
    (prompt,) = host.call("BayesDiffDemoPrompt", model=model, text="B A K E\nF R E T").outputs
    samples = scene.ksampler(model=model, positive=prompt, steps=2)
    assert torch.equal(samples, scene.ksampler(steps=2))
    (image,) = host.call("VAEDecode", samples={"samples": samples}, vae=vae).outputs
    assert image.shape == (2, 128, 128, 3)


def test_another_model_of_the_same_architecture_is_refused(host: Host) -> None:
    other = tiny_scene(host, "mmdit").model
    with pytest.raises(ValueError, match="belongs to the bundled models"):
        host.call("BayesDiffDemoPrompt", model=other, text="B A K E")
