"""Masks: thresholds, growth, small regions, soft borders and boxes."""

from itertools import pairwise

import pytest
import torch

from bayesdiff_core.mask import above, feather, grow, minimum_area, regions, threshold_mask


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blobs(seed: int = 0) -> torch.Tensor:
    """Masks of many irregular regions, shape (3, 48, 40)."""
    smooth = torch.nn.functional.avg_pool2d(noise(3, 54, 46, seed=seed)[:, None], 7, stride=1)
    return threshold_mask(smooth[:, 0], percentile=80)


class TestThreshold:
    @pytest.mark.parametrize("percentile", [0.0, 50.0, 90.0, 100.0])
    def test_percentile_masks_its_share_of_the_pixels(self, percentile):
        mask = threshold_mask(noise(2, 40, 50), percentile=percentile)
        share = mask.mean(dim=(1, 2)) * 100
        # One of the 2,000 pixels is 0.05 percent.
        torch.testing.assert_close(share, torch.full((2,), 100 - percentile), atol=0.051, rtol=0)

    def test_percentile_does_not_depend_on_the_unit_and_may_be_negative(self):
        maps = noise(2, 20, 20) - 5.0
        assert (maps < 0).all()
        expected = threshold_mask(maps, percentile=75)
        assert torch.equal(threshold_mask(8.0 * maps, percentile=75), expected)

    def test_thresholds_are_in_the_unit_of_their_maps(self):
        maps = torch.tensor([[[-0.5, 0.0, 0.25]], [[-0.5, 0.0, 0.25]]])
        assert above(maps, torch.tensor([-0.1, 0.0])).tolist() == [[[0, 1, 1]], [[0, 0, 1]]]

    def test_mask_does_not_depend_on_the_batch(self):
        maps = noise(3, 16, 16) * torch.tensor([1.0, 5.0, 0.2])[:, None, None]
        alone = torch.cat([threshold_mask(map_[None], percentile=80.0) for map_ in maps])
        assert torch.equal(threshold_mask(maps, percentile=80.0), alone)

    @pytest.mark.parametrize("percentile", [0.0, 50.0, 100.0])
    def test_nothing_stands_out_of_a_constant_map(self, percentile):
        assert threshold_mask(torch.full((1, 8, 8), 0.1), percentile=percentile).sum() == 0

    @pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
    def test_diverged_map_is_refused_in_words(self, bad):
        with pytest.raises(ValueError, match=r"NaN or infinite.*sample again"):
            threshold_mask(torch.tensor([[[0.0, bad]]]), percentile=50)

    def test_percentile_out_of_range_is_refused(self):
        with pytest.raises(ValueError, match="between 0 and 100"):
            threshold_mask(noise(1, 4, 4), percentile=101)


class TestGrow:
    def test_growing_is_monotone_in_the_distance_and_in_the_mask(self):
        mask, part = blobs(), blobs() * blobs(seed=1)
        sizes = [-3, -1, 0, 1, 2.5, 6]
        for less, more in pairwise(sizes):
            assert (grow(mask, less) <= grow(mask, more)).all()
        for size in sizes:
            assert (grow(part, size) <= grow(mask, size)).all()
        assert torch.equal(grow(mask, 0), mask)

    def test_point_grows_into_a_disc(self):
        mask = torch.zeros(1, 21, 21)
        mask[0, 10, 10] = 1.0
        y, x = torch.meshgrid(torch.arange(21) - 10, torch.arange(21) - 10, indexing="ij")
        assert torch.equal(grow(mask, 5)[0], (x**2 + y**2 <= 25).float())

    def test_shrinking_is_growing_of_the_outside(self):
        mask = blobs()
        # Nearest outside pixel further than d away, against outside grown by d.
        assert torch.equal(grow(mask, -2), 1 - grow(1 - mask, 2))

    def test_empty_stays_empty_and_full_stays_full(self):
        empty, full = torch.zeros(1, 9, 9), torch.ones(1, 9, 9)
        for size in (-4, 0, 4):
            assert torch.equal(grow(empty, size), empty)
            assert torch.equal(grow(full, size), full)


class TestFeather:
    @pytest.mark.parametrize("pixels", [0.5, 4, 15])
    def test_core_stays_one_and_far_away_stays_zero(self, pixels):
        mask = blobs()
        soft = feather(mask, pixels)
        assert (soft[mask == 1] == 1).all()
        assert (soft[grow(mask, pixels) == 0] == 0).all()
        assert soft.min() >= 0 and soft.max() <= 1

    def test_falls_with_the_distance_without_a_jump(self):
        mask = torch.zeros(1, 1, 60)
        mask[0, 0, :10] = 1.0
        falls = -feather(mask, 30)[0, 0].diff()
        assert (falls >= 0).all()
        # The steepest fall of a Gaussian is exp(-1/2) / sigma a pixel, and sigma is 10.
        assert falls.max() < 1.05 * 0.0607

    def test_zero_pixels_leave_a_binary_mask_as_it_is(self):
        assert torch.equal(feather(blobs(), 0), blobs())

    def test_empty_mask_stays_empty(self):
        assert feather(torch.zeros(2, 8, 8), 5).sum() == 0

    def test_regions_do_not_change_by_feathering(self):
        box = regions(blobs()).boxes
        core = (feather(blobs(), 6) == 1).float()
        assert regions(core).boxes == box


class TestRegions:
    def test_labels_cover_the_mask_exactly_and_boxes_fit_tightly(self):
        mask = blobs()
        found = regions(mask)
        assert torch.equal((found.labels > 0).float(), mask)
        for boxes, labels in zip(found.boxes, found.labels, strict=True):
            assert len(boxes) == labels.max() > 1
            for label, box in enumerate(boxes, start=1):
                rows, columns = torch.nonzero(labels == label, as_tuple=True)
                assert (box.x, box.y) == (columns.min(), rows.min())
                assert (box.x + box.width - 1, box.y + box.height - 1) == (
                    columns.max(),
                    rows.max(),
                )
                assert box.area == len(rows)

    def test_largest_region_comes_first(self):
        for boxes in regions(blobs()).boxes:
            areas = [box.area for box in boxes]
            assert areas == sorted(areas, reverse=True)

    def test_touching_corners_connect(self):
        assert len(regions(torch.eye(5)[None]).boxes[0]) == 1

    def test_empty_mask_has_no_region(self):
        found = regions(torch.zeros(2, 6, 6))
        assert found.boxes == [[], []] and found.labels.sum() == 0

    def test_minimum_area_drops_exactly_the_smaller_regions(self):
        mask = blobs()
        areas = [box.area for box in regions(mask).boxes[0]]
        limit = areas[len(areas) // 2]
        kept = minimum_area(mask, limit)
        assert [box.area for box in regions(kept).boxes[0]] == [a for a in areas if a >= limit]
        assert (kept <= mask).all()
        assert torch.equal(minimum_area(mask, 1), mask)
        assert minimum_area(mask, max(areas) * 100).sum() == 0
