"""The benchmark's yardsticks measure what they say."""

import pytest
import torch
from scipy import stats

from benchmarks.metrics import auroc, bootstrap, content, partial_spearman, spearman


@pytest.fixture
def images():
    grey = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return grey.expand(-1, 3, -1, -1)


def noise(seed):
    return torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_spearman_is_scipys_and_ignores_monotone_maps(images):
    a, b = images[:, 0], images[:, 0] + noise(1)
    expected = [stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b)]
    torch.testing.assert_close(spearman(a, b), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(spearman(a, b), spearman(a.exp(), b**3))


def test_content_alone_earns_no_partial_correlation(images):
    """Two maps that share nothing but the image agree, and the partial figure sees through it."""
    grey = images.mean(1)
    a, b = grey + 0.1 * noise(1), grey + 0.1 * noise(2)
    assert spearman(a, b).min() > 0.9
    assert partial_spearman(a, b, images).abs().max() < 0.15


def test_what_is_shared_beyond_content_survives(images):
    shared = noise(3)
    grey = images.mean(1)
    a, b = grey + shared, grey + shared + 0.1 * noise(4)
    assert partial_spearman(a, b, images).min() > 0.9


def test_flat_images_are_no_obstacle():
    flat = torch.zeros(4, 3, 16, 16)
    a = noise(1)
    torch.testing.assert_close(
        partial_spearman(a, a, flat), torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert torch.isfinite(content(flat)).all()


def test_auroc_is_the_share_of_ordered_pairs():
    scores = torch.tensor([0.1, 0.4, 0.4, 0.9])
    assert auroc(scores, torch.tensor([0, 0, 1, 1])) == pytest.approx(3.5 / 4)
    assert auroc(scores, torch.tensor([1, 1, 0, 0])) == pytest.approx(0.5 / 4)
    assert torch.tensor(auroc(scores, torch.zeros(4))).isnan()


def test_bootstrap_covers_the_mean_and_narrows_with_more_images():
    generator = torch.Generator().manual_seed(0)
    few = bootstrap(torch.randn(20, generator=generator))
    many = bootstrap(torch.randn(2000, generator=generator))
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
