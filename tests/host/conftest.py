"""A tiny model of the host with random weights, and what a sampler needs around it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.host import Host


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small only lose time to threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def only_samplers_of_this_host(request: pytest.FixtureRequest):
    """Older hosts lack some of the samplers that the tests name."""
    call = getattr(request.node, "callspec", None)
    name = call and call.params.get("sampler_name")
    if name:
        host = request.getfixturevalue("host")
        if name not in host.module("nodes.host.uncertain_run").SAMPLERS:
            pytest.skip(f"{host.location} has no sampler {name}")


@dataclass(frozen=True)
class Scene:
    """A model with prompts for a batch of three latents."""

    host: Host
    model: Any
    positive: Any
    negative: Any
    latent: dict[str, Any]

    def inputs(self, **changes: Any) -> dict[str, Any]:
        """Inputs of KSampler and of UncertainKSampler."""
        return {
            "model": self.model,
            "seed": 5,
            "steps": 4,
            "cfg": 3.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "positive": self.positive,
            "negative": self.negative,
            "latent_image": self.latent,
            "denoise": 1.0,
            **changes,
        }

    def of_kind(self, kind: str) -> Any:
        """The model, its output read as velocity of a flow, as noise, or as v."""
        import comfy.model_base

        if kind == "flow":
            return self.model
        types = comfy.model_base.ModelType
        model = self.model.clone()
        config = SimpleNamespace(sampling_settings={})
        sampling = comfy.model_base.model_sampling(
            config, {"eps": types.EPS, "v": types.V_PREDICTION}[kind]
        )
        model.add_object_patch("model_sampling", sampling)
        return model

    def ksampler(self, **changes: Any) -> torch.Tensor:
        """Samples of the host's own KSampler."""
        (latent,) = self.host.call("KSampler", **self.inputs(**changes)).outputs
        return latent["samples"]

    def uncertain(self, **changes: Any) -> tuple[torch.Tensor, Any]:
        """Samples and UNCERTAINTY of UncertainKSampler."""
        result = self.host.call("UncertainKSampler", **self.inputs(**changes))
        return result.outputs[0]["samples"], result.outputs[1]

    def fit(self, **changes: Any) -> Any:
        """LAPLACE of the model."""
        inputs = {
            "model": self.model,
            "latents": {"samples": torch.tanh(noise(self.latent["samples"].shape, 7))},
            "conditioning": self.positive,
            "draws": 2,
            "structure": "full",
            "seed": 0,
            **changes,
        }
        return self.host.call("LaplaceFit", **inputs).outputs[0]


def noise(shape: torch.Size | tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_network(host: Host, channels: int = 1) -> Any:
    """A network of the bundled models' architecture in which every weight matters."""
    network = host.module("demo.network")
    config = network.SceneConfig(
        name="random",
        channels=channels,
        image_size=16,
        label_grid=(2, 2),
        class_names=tuple("0123456789"),
        widths=(16, 32),
        blocks=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scene = network.SceneUNet(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in scene.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return scene


@pytest.fixture(scope="session")
def scene(host: Host) -> Scene:
    model = host.module("nodes.host.demo_models").wrap_network(random_network(host, channels=2))
    prompt = {"model": model, "text": "3 1 4 1\n5 9 2 6\n5 3 5 8"}
    (positive,) = host.call("BayesDiffDemoPrompt", **prompt).outputs
    (negative,) = host.call("BayesDiffDemoPrompt", model=model, text="").outputs
    (latent,) = host.call("BayesDiffDemoLatent", model=model, batch_size=3).outputs
    return Scene(host, model, positive, negative, latent)


@pytest.fixture(scope="session")
def laplace(scene: Scene) -> Any:
    return scene.fit()
