"""The latent-space model: its labels, its training latents, its autoencoder and its samples."""

from __future__ import annotations

import pytest
import torch

from bayesdiff_core.flow_matching import FlowModel
from bayesdiff_core.solvers import flow_sigmas
from demo import bundle
from demo.autoencoder import Autoencoder, cut, pad
from demo.evaluate import sample
from demo.latents import pool_batches
from demo.oracle import accepted_quadrants, load_oracle
from demo.scene import quadrants
from demo.transformer import SceneTransformer, TransformerConfig, label_codes

SMALL = TransformerConfig("small", 4, 8, (2, 2), tuple("ABC"), depth=1)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _labels(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (count, 4), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def letters() -> SceneTransformer:
    model = bundle.load_model("letters")[0]
    assert isinstance(model, SceneTransformer)
    return model


@pytest.mark.parametrize("name", ["letters", "letters_vae", "oracle_letters"])
def test_weights_stay_small(name: str) -> None:
    assert bundle.weights_path(name).stat().st_size < 6e6


def test_codes_are_orthonormal_and_none_is_zero() -> None:
    every = torch.arange(3)[:, None].expand(3, 4)
    codes = label_codes(every, SMALL).flatten(0, 1)
    assert torch.equal(codes @ codes.T, torch.eye(12))
    assert not label_codes(torch.full((1, 4), SMALL.null_label), SMALL).any()
    mixed = label_codes(torch.tensor([[SMALL.null_label, 1, 2, 0]]), SMALL)
    assert torch.equal(mixed.sum(-1), torch.tensor([[0.0, 1.0, 1.0, 1.0]]))


@torch.no_grad()
def test_every_weight_of_the_output_reaches_the_pixel_its_map_names() -> None:
    """The map from the last layer's rows to the latent is what unpatchifying does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SceneTransformer(SMALL).eval()
    flow = FlowModel(network, SMALL.sample_shape, _labels(1, 3))
    assert flow.layer.name == "final_layer.linear"
    x, t, y = _random(2, *SMALL.sample_shape), torch.tensor([0.3, 0.8]), _labels(2, 3)
    with flow.layer.tap() as activations:
        v = network(x, t, y)
    rows = activations[0] @ network.final_layer.linear.weight.T + network.final_layer.linear.bias
    torch.testing.assert_close(flow.output_map.gather(rows), v)


@torch.no_grad()
def test_a_padded_autoencoder_is_the_same_function() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        narrow, wide = Autoencoder(8), Autoencoder(24)
    weights = narrow.state_dict()
    wide.load_state_dict(pad(weights, 24))
    images = _random(2, 3, 32, 32).tanh()
    latents = narrow.encode(images)
    assert latents.shape == (2, 16, 4, 4)
    torch.testing.assert_close(wide.encode(images), latents)
    torch.testing.assert_close(wide.decode(latents), narrow.decode(latents))
    assert all(torch.equal(cut(pad(weights, 24), 8)[name], weights[name]) for name in weights)
    with pytest.raises(ValueError, match="more than 4 channels"):
        cut(weights, 4)


def test_training_scenes_keep_each_quadrant_with_its_label_and_place() -> None:
    cells = torch.arange(40.0).reshape(10, 4)
    latents = cells.reshape(10, 1, 2, 2).repeat_interleave(4, -1).repeat_interleave(4, -2)
    scenes, labels = pool_batches(latents, cells.long())(64, torch.Generator().manual_seed(0))
    assert torch.equal(quadrants(scenes).mean((2, 3, 4)).long(), labels)
    assert (labels % 4 == torch.arange(4)).all()
    assert (labels // 4).float().std(dim=1).min() > 0, "quadrants come from different scenes"


def test_the_schedule_dwells_on_noise_and_ends_clean() -> None:
    times = flow_sigmas(30, 3.0)
    assert times[0] == 1 and times[-1] == 0
    assert (times.diff() < 0).all()
    assert times[15] == pytest.approx(0.75)
    assert torch.equal(flow_sigmas(30, 1.0), torch.linspace(1, 0, 31))


@torch.no_grad()
def test_a_latents_velocity_ignores_its_neighbours(letters: SceneTransformer) -> None:
    y = _labels(3, letters.config.null_label)
    x, t = _random(3, *letters.config.sample_shape), torch.tensor([0.1, 0.6, 1.0])
    alone = torch.cat([letters(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(letters(x, t, y), alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_label_steers_its_own_quadrant_most(letters: SceneTransformer) -> None:
    classes = letters.config.null_label
    x, t = _random(8, *letters.config.sample_shape), torch.full((8,), 0.8)
    y = _labels(8, classes)
    for cell in range(4):
        other = y.clone()
        other[:, cell] = (other[:, cell] + 3) % classes
        change = quadrants((letters(x, t, other) - letters(x, t, y)).square()).mean((0, 2, 3, 4))
        assert change.argmax() == cell
        assert change[cell] > 0.5 * change.sum()


@torch.no_grad()
def test_letters_are_drawn_as_asked(letters: SceneTransformer) -> None:
    labels = _labels(16, letters.config.null_label)
    latents = sample(letters, labels, guidance_scale=1.5, steps=20, seed=0)
    assert 0.8 < latents.std() < 1.25, "training latents have unit variance"
    scenes = bundle.load_decoder("letters")(latents)
    assert scenes.shape == (16, 3, 128, 128)
    oracle = load_oracle("letters")
    assert accepted_quadrants(oracle, scenes, labels).float().mean() >= 0.85
    wrong = (labels + 1) % letters.config.null_label
    assert accepted_quadrants(oracle, scenes, wrong).float().mean() < 0.1
