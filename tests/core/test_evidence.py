"""The figures behind docs/evidence.md: scores of regions, dropping the worst, further signals."""

import pytest
import torch

from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.last_layer import OutputMap
from benchmarks.detection.candidate_signals import Influence, weighted_variance
from benchmarks.detection.filtering import Filter, PrincipalAxes
from benchmarks.detection.table import Table, over_scenes, standardised, top1
from demo.evaluate import frechet_distance


class Quadrants:
    regions = 4

    @staticmethod
    def split(maps):
        tiles = maps.unflatten(1, (2, -1)).unflatten(3, (2, -1))
        return tiles.permute(0, 1, 3, 2, 4).flatten(1, 2).flatten(2)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def table():
    """A signal that marks the malformed quadrant and one that marks nothing."""
    bad = torch.zeros(40, 4, dtype=torch.bool)
    bad[torch.arange(40), torch.arange(40) % 4] = True
    bad[30:] = False
    maps = torch.zeros(40, 8, 8)
    for image, quadrant in bad.nonzero().tolist():
        top, left = 4 * (quadrant // 2), 4 * (quadrant % 2)
        maps[image, top : top + 4, left : left + 4] = 1
    table = Table(Quadrants())
    table.add_maps({"perfect": maps + 0.01 * randn(40, 8, 8), "noise": randn(40, 8, 8, seed=1)})
    table.add_truth(category=bad)
    return table


def test_a_signal_that_marks_what_is_malformed_is_perfect(table):
    for figure in table.figures("perfect", "category").values():
        assert figure.mean == figure.low == figure.high == 1.0


def test_noise_finds_nothing_and_its_loss_is_seen(table):
    found = table.figures("noise", "category", reference="perfect")
    assert found["auroc"].low < 0.5 < found["auroc"].high
    assert found["gain"].high < 0
    assert table.figures("perfect", "category", "perfect")["gain"].mean == 0


def test_a_sum_of_scores_stays_between_its_parts(table):
    table.combine("sum", {"perfect": 1.0, "noise": 0.1})
    table.combine("noise alone", {"perfect": 0.0, "noise": 1.0})
    sums = table.figures("sum", "category")["auroc"].mean
    assert sums > table.figures("noise", "category")["auroc"].mean
    assert table.figures("noise alone", "category") == table.figures("noise", "category")


def test_trajectory_scores_enter_sums_as_logarithms():
    scores = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    found = standardised(scores, "trajectory")
    torch.testing.assert_close(found.diff(dim=1), found.diff(dim=1)[:, :1].expand(1, 3))
    torch.testing.assert_close(standardised(3 * scores + 1, "contrast"), standardised(scores, "x"))


def test_top1_counts_scenes_with_one_malformed_region():
    bad = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    scores = torch.tensor([[9.0, 1, 1, 1], [9, 1, 1, 1], [0, 0, 9, 9], [1, 2, 3, 4]])
    assert top1(scores, bad) == 0.5
    assert torch.tensor(top1(scores, torch.zeros_like(bad))).isnan()


def test_intervals_resample_whole_scenes():
    """Copies of a region within its scene must not narrow the interval."""
    scores, bad = randn(60, 1), randn(60, 1, seed=1) > 0

    def share(values, positive):
        return values[positive].mean().item()

    once = over_scenes(share, scores, bad)
    copied = over_scenes(share, scores.expand(-1, 4), bad.expand(-1, 4))
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=1e-4)


def test_frechet_distance_of_gaussians_in_closed_form():
    first = randn(400, 3).double()
    first = (first - first.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(first.T.cov())).T
    second = 2 * first + torch.tensor([1.0, 0, 0])
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    # |mean|^2 + tr (I + 4 I - 2 * 2 I) in three dimensions.
    assert frechet_distance(first, second) == pytest.approx(1 + 3, rel=1e-6)


def test_principal_axes_keep_what_varies():
    scales = torch.tensor([10.0, 5.0, 0.01, 0.01])
    features = randn(500, 4) * scales
    axes = PrincipalAxes.of(features, share=0.99)
    coordinates = axes(features)
    assert coordinates.shape == (500, 2)
    torch.testing.assert_close(coordinates.mean(0), torch.zeros(2).double(), atol=1e-6, rtol=0)
    total = features.double().var(0).sum()
    assert coordinates.var(0).sum() / total > 0.99


def test_dropping_by_the_truth_is_the_best_drop():
    malformed = torch.zeros(100, 4, dtype=torch.bool)
    malformed[:17, 0] = True
    features = randn(100, 4, 3)
    features[malformed] += 20
    real = randn(300, 3, seed=1)
    pictures = Filter(malformed, features, real, PrincipalAxes.of(real))
    best = pictures.by_score(malformed.sum(1).float())
    mean, deviation = pictures.at_random()
    assert pictures.count == 83
    assert best.regions == best.scenes == 1.0
    assert best.frechet < mean.frechet - 3 * deviation.frechet
    assert mean.regions == pytest.approx(1 - 17 / 400, abs=4 * deviation.regions + 1e-3)


def test_even_weights_give_the_variance():
    values = randn(7, 2, 3, 4, 4)
    expected = values.var(0, unbiased=False).mean(1)
    torch.testing.assert_close(weighted_variance(values, torch.full((7,), 3.0)), expected)
    first_only = torch.tensor([1.0] + [0.0] * 6)
    torch.testing.assert_close(weighted_variance(values, first_only), torch.zeros(2, 4, 4))


@pytest.mark.parametrize("patch", [1, 2])
def test_influence_is_the_posterior_variance_along_the_windows_gradient(patch):
    """On one window: g^T Sigma g with g the mean of r phi, summed over rows."""
    side, channels, features = 8 // patch, 2, 5
    rows = channels * patch**2
    grid = torch.arange(side * side).view(side, side)
    position = grid.repeat_interleave(patch, 0).repeat_interleave(patch, 1).expand(channels, 8, 8)
    within = torch.arange(8) % patch
    row = (within[:, None] * patch + within) * channels + torch.arange(channels)[:, None, None]
    output_map = OutputMap(position, row, -torch.ones(channels, 8, 8), side * side)
    posterior = LaplacePosterior(torch.eye(features) * 3, 1.0, 0.1, rows, 1)
    phi, residuals = randn(2, side * side, features), randn(2, channels, 8, 8, seed=1)
    found = Influence(None, output_map, posterior)(phi, residuals)

    reach = 2 if patch == 1 else 1
    # The first window lies in the corner: what the picture does not have does not count.
    inside = grid[: reach + 1, : reach + 1].flatten()
    expected = torch.zeros(2)
    for r in range(rows):
        place = row == r
        values = torch.stack([residuals[:, place & (position == p)][:, 0] for p in inside], 1)
        gradient = -(values[..., None] * phi[:, inside]).mean(1)
        expected += gradient.square().sum(1) / 4
    torch.testing.assert_close(found[:, 0, 0], expected)
    assert found.shape == (2, 8, 8)
