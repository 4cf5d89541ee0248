"""The bundled models do what their cards claim."""

from __future__ import annotations

import pytest
import torch

from bayesdiff_core.flow_matching import FlowDenoiser, FlowModel
from demo import bundle
from demo.evaluate import sample
from demo.network import SceneUNet
from demo.oracle import accepted_quadrants, load_oracle
from demo.scene import quadrants

MODELS = ["digits", "emoji"]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> SceneUNet:
    return bundle.load_model(request.param)[0]


def _labels(model: SceneUNet, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, model.config.n_labels)
    return torch.randint(model.config.null_label, shape, generator=generator)


@pytest.mark.parametrize("name", [*MODELS, "oracle_digits", "oracle_emoji"])
def test_weights_stay_small(name: str) -> None:
    assert (bundle.MODELS / f"{name}.safetensors").stat().st_size < 6e6


def test_a_missing_model_is_named_in_the_error() -> None:
    with pytest.raises(FileNotFoundError, match="'portraits' is missing"):
        bundle.load_model("portraits")


def test_a_model_survives_the_round_trip_to_disk(
    model: SceneUNet, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MODELS", tmp_path)
    bundle.save_model(model)
    restored, config = bundle.load_model(model.config.name)
    assert config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value), name


def test_the_last_layer_is_the_output(model: SceneUNet) -> None:
    """The Laplace posterior needs the returned tensor to be ``out[2]`` applied to its input."""
    captured = {}
    handle = model.out[2].register_forward_hook(
        lambda layer, inputs, output: captured.update(inputs=inputs[0], output=output)
    )
    y = _labels(model, 3)
    x = torch.randn(3, *model.config.sample_shape, generator=torch.Generator().manual_seed(1))
    v = model(x, torch.tensor([0.1, 0.5, 1.0]), y)
    handle.remove()
    assert isinstance(model.out[2], torch.nn.Conv2d)
    assert model.out[2].bias is not None
    assert torch.equal(v, captured["output"])


def test_the_velocity_is_a_function_of_its_inputs_alone(model: SceneUNet) -> None:
    """No dropout, no batch statistics: an image's velocity ignores its neighbours."""
    y = _labels(model, 4)
    x = torch.randn(4, *model.config.sample_shape, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([0.05, 0.3, 0.7, 1.0])
    together = model(x, t, y)
    assert torch.equal(together, model(x, t, y))
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(4)])
    # Kernels may sum in another order for another batch size.
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_guidance_interpolates_between_unconditional_and_conditional(model: SceneUNet) -> None:
    y = _labels(model, 2)
    x = torch.randn(2, *model.config.sample_shape, generator=torch.Generator().manual_seed(3))
    t = torch.full((2,), 0.6)
    null = torch.full_like(y, model.config.null_label)
    flow = FlowModel(model, model.config.sample_shape, y)
    for guidance, expected in ((0.0, model(x, t, null)), (1.0, model(x, t, y))):
        denoised = FlowDenoiser(flow, y, null, guidance).denoise(x, t[0])
        torch.testing.assert_close((x - denoised) / t[0], expected, atol=1e-4, rtol=1e-4)


def test_a_label_steers_its_own_quadrant_most() -> None:
    model, config = bundle.load_model("digits")
    x = torch.randn(8, *config.sample_shape, generator=torch.Generator().manual_seed(4))
    t = torch.full((8,), 0.8)
    y = _labels(model, 8)
    for cell in range(config.n_labels):
        other = y.clone()
        other[:, cell] = (other[:, cell] + 3) % config.null_label
        change = quadrants((model(x, t, other) - model(x, t, y)).square()).mean(dim=(0, 2, 3, 4))
        assert change.argmax() == cell
        assert change[cell] > 0.5 * change.sum()


def test_digits_are_drawn_as_asked() -> None:
    model, config = bundle.load_model("digits")
    labels = _labels(model, 32)
    scenes = sample(model, labels, guidance_scale=1.5, seed=0)
    accepted = accepted_quadrants(load_oracle("digits"), scenes, labels).float().mean()
    assert accepted >= 0.9
    # The same oracle finds almost nothing where the labels are others.
    wrong = (labels + 1) % config.null_label
    assert accepted_quadrants(load_oracle("digits"), scenes, wrong).float().mean() < 0.1


@pytest.mark.parametrize(("guidance", "stray"), [(1.0, 0.001), (3.0, 0.01)])
def test_emoji_neither_diverge_nor_saturate(guidance: float, stray: float) -> None:
    """Values stay within [-1.2, 1.2] but for single pixels, and within [-2, 2] everywhere.

    Images of noise or of one saturated colour would be out of range over most of their area, or
    have a standard deviation outside what real emoji have (0.08 to 0.91).
    """
    model, config = bundle.load_model("emoji")
    labels = torch.arange(18)[:, None] % len(config.class_names)
    images = sample(model, labels, guidance_scale=guidance, steps=20, seed=0)
    assert images.isfinite().all()
    assert images.abs().max() <= 2
    outside = (images.abs() > 1.2).float().flatten(1).mean(dim=1)
    assert outside.mean() <= stray
    assert outside.max() <= 0.25
    deviation = images.flatten(1).std(dim=1)
    assert deviation.min() > 0.08
    assert deviation.max() < 1.0


def test_emoji_stand_on_white() -> None:
    """The ground of most emoji is white: so is the edge of most samples."""
    model, config = bundle.load_model("emoji")
    labels = torch.arange(18)[:, None] % config.null_label
    images = sample(model, labels, guidance_scale=1.0, steps=20, seed=1)
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean(dim=1).flatten()
    assert (corners > 0.85).float().mean() > 0.75
