"""The latent-space model: the host's own loaders take its files, and compute what we compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.host.conftest import noise
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
    model = host.module("nodes.host.demo").load_transformer(random_files.weights_path("letters"))
    labels = torch.tensor([[0, 5, 15, 3], [16, 16, 16, 16]])
    ((context, extras),) = host.module("nodes.host.demo").labels_conditioning(config, labels)
    x, t = noise((2, *config.sample_shape), 1), torch.tensor([0.9, 0.2])
    diffusion_model = model.model.diffusion_model.float()
    theirs = diffusion_model(x, 1000 * t, context, extras["pooled_output"])
    torch.testing.assert_close(theirs, network(x, t, labels), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_hosts_vae_computes_the_same_pictures_and_latents(host: Host, random_files) -> None:
    autoencoder = random_files.load_autoencoder("letters_vae")
    vae = host.module("nodes.host.demo").load_vae(random_files.weights_path("letters_vae"))
    latent_format = host.module("nodes.host.demo").comfy.latent_formats.SD3()
    z = noise((2, 16, 4, 4), 1)
    image = vae.decode(latent_format.process_out(z))
    expected = autoencoder.decode(z).movedim(1, -1) / 2 + 0.5
    torch.testing.assert_close(image, expected.clamp(0, 1), rtol=1e-3, atol=1e-3)
    back = latent_format.process_in(vae.encode(image))
    ours = autoencoder.encode(image.movedim(-1, 1) * 2 - 1)
    torch.testing.assert_close(back, ours, rtol=1e-3, atol=1e-3)
