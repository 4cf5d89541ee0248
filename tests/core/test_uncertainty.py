"""The result object: signals by name, scores, selection."""

import pytest
import torch

from bayesdiff_core.uncertainty import SIGNALS, Signal, Uncertainty, posterior_signal


def make(**maps):
    return Uncertainty({name: Signal(m, "unit") for name, m in maps.items()})


def test_score_is_the_mean_of_the_highest_tenth():
    values = torch.arange(100.0).view(1, 10, 10)
    assert Signal(values, "u").scores.item() == pytest.approx(94.5)


def test_scores_do_not_depend_on_the_rest_of_the_batch():
    maps = torch.randn(4, 8, 8)
    torch.testing.assert_close(Signal(maps, "u").scores[2:3], Signal(maps[2:3], "u").scores)


def test_artifact_is_the_best_detector_at_hand():
    trajectory, contrast = torch.rand(2, 4, 4), torch.randn(2, 4, 4)
    assert torch.equal(make(trajectory=trajectory).signal("artifact").map, trajectory)
    both = make(trajectory=trajectory, contrast=contrast)
    assert torch.equal(both.signal("artifact").map, contrast)


def test_a_missing_signal_says_how_to_get_it():
    with pytest.raises(ValueError, match="LaplaceFit"):
        make(trajectory=torch.rand(1, 2, 2)).signal("posterior")
    with pytest.raises(ValueError, match="recorded no signal"):
        Uncertainty({}).signal("artifact")


def test_selection_keeps_signals_together():
    trajectory = torch.rand(3, 4, 4)
    uncertainty = make(trajectory=trajectory)
    uncertainty.latent_std = torch.rand(3, 2, 4, 4)
    one = uncertainty.select(1)
    assert one.batch == 1
    assert torch.equal(one.signal("trajectory").map[0], trajectory[1])
    assert torch.equal(one.latent_std[0], uncertainty.latent_std[1])


def test_posterior_signal_is_the_root_mean_square_over_channels():
    std = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert posterior_signal(2 * std).map.item() == pytest.approx(2 * (12.5**0.5))


def test_every_signal_is_explained():
    assert all(len(kind.text) > 20 for kind in SIGNALS.values())
