"""Scores and the order and choice of images by them."""

import pytest
import torch

from bayesdiff_core.ranking import keep_count, keep_percent, pool, rank

NAN, INF = float("nan"), float("inf")
DIRECTIONS = ["ascending", "descending"]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestRank:
    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_order_is_a_permutation_that_sorts(self, direction):
        scores = noise(50)
        order = rank(scores, direction)
        assert sorted(order.tolist()) == list(range(50))
        steps = scores[order].diff()
        assert (steps >= 0).all() if direction == "ascending" else (steps <= 0).all()

    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_ties_keep_their_order(self, direction):
        scores = torch.tensor([1.0, 0.0, 1.0, 0.0] * 20)
        order = rank(scores, direction)
        for value in (0.0, 1.0):
            places = order[scores[order] == value]
            assert (places.diff() > 0).all()

    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_images_without_a_score_come_last_after_infinite_ones(self, direction):
        scores = torch.tensor([NAN, INF, 2.0, NAN, -INF, 1.0])
        order = rank(scores, direction).tolist()
        assert order[4:] == [0, 3]
        assert order[:4] == ([4, 5, 2, 1] if direction == "ascending" else [1, 2, 5, 4])

    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_order_does_not_depend_on_the_unit(self, direction):
        scores = noise(30)
        assert torch.equal(rank(3.0 * scores - 7.0, direction), rank(scores, direction))

    def test_maps_instead_of_scores_are_refused(self):
        with pytest.raises(ValueError, match="pool the maps first"):
            rank(noise(2, 4, 4))


class TestKeep:
    def test_kept_images_are_the_best(self):
        scores = noise(30)
        kept = keep_count(rank(scores), 7)
        others = [i for i in range(30) if i not in kept.tolist()]
        assert scores[kept].max() <= scores[others].min()

    def test_more_than_there_are_keeps_all(self):
        assert len(keep_count(rank(noise(3)), 10)) == 3

    @pytest.mark.parametrize(
        ("count", "percent", "kept"), [(30, 10, 3), (10, 83, 9), (3, 1, 1), (7, 100, 7)]
    )
    def test_percent_is_rounded_up(self, count, percent, kept):
        assert len(keep_percent(rank(noise(count)), percent)) == kept

    @pytest.mark.parametrize("kept", range(1, 1001, 20))
    def test_whole_shares_are_exact(self, kept):
        # 16.1 percent of 1000 is a little more than 161 in floating point.
        assert len(keep_percent(torch.arange(1000), kept / 10)) == kept

    def test_keeping_nothing_is_refused(self):
        with pytest.raises(ValueError, match="At least one"):
            keep_count(torch.arange(3), 0)
        with pytest.raises(ValueError, match="above 0"):
            keep_percent(torch.arange(3), 0)


class TestPool:
    def test_top10_averages_the_highest_tenth(self):
        maps = torch.randperm(400, generator=torch.Generator().manual_seed(0)).float()
        assert pool(maps.reshape(1, 20, 20), "top10").item() == pytest.approx(379.5)

    @pytest.mark.parametrize("pooling", ["mean", "top10"])
    def test_score_does_not_depend_on_the_resolution(self, pooling):
        maps = noise(3, 7, 9)
        larger = maps.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
        torch.testing.assert_close(pool(larger, pooling), pool(maps, pooling))

    @pytest.mark.parametrize("pooling", ["mean", "top10"])
    def test_binary_mask_scores_its_pixels_alone(self, pooling):
        maps = noise(2, 12, 12)
        mask = torch.zeros(2, 12, 12)
        mask[:, 3:8, 2:11] = 1.0
        torch.testing.assert_close(pool(maps, pooling, mask), pool(maps[:, 3:8, 2:11], pooling))

    @pytest.mark.parametrize("pooling", ["mean", "top10"])
    def test_score_follows_the_unit_and_lies_within_the_map(self, pooling):
        maps = noise(4, 10, 10)
        scores = pool(maps, pooling)
        torch.testing.assert_close(pool(4.0 * maps - 1.0, pooling), 4.0 * scores - 1.0)
        assert (scores <= maps.amax(dim=(1, 2))).all()
        assert (pool(maps, "top10") >= pool(maps, "mean")).all()

    @pytest.mark.parametrize("pooling", ["mean", "top10"])
    def test_strength_of_a_mask_does_not_matter_only_its_shape(self, pooling):
        maps, mask = noise(2, 9, 9), noise(2, 9, 9, seed=1).sigmoid()
        torch.testing.assert_close(pool(maps, pooling, 0.3 * mask), pool(maps, pooling, mask))

    def test_empty_mask_gives_no_score_and_ranks_last(self):
        masks = torch.ones(2, 4, 4)
        masks[0] = 0.0
        scores = pool(noise(2, 4, 4), "mean", masks)
        assert scores.isnan().tolist() == [True, False]
        assert rank(scores).tolist() == [1, 0]

    def test_mask_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match="resize the mask"):
            pool(noise(1, 8, 8), "mean", torch.ones(1, 4, 4))
