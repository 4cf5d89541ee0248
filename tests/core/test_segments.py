"""What is selected to be sampled again."""

import pytest
import torch

from bayesdiff_core.segments import Selection, corners, segments


@pytest.fixture
def maps():
    """Two squares of high values, the larger one at the right."""
    result = torch.linspace(0, 0.1, 64 * 64).reshape(1, 64, 64).clone()
    result[:, 10:14, 8:12] = 1.0
    result[:, 30:40, 40:56] = 2.0
    return result


def test_a_percentile_takes_that_share_of_the_pixels(maps):
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    selection = Selection(percentile=75)
    masks = selection.regions(noise, selection.thresholds(noise))
    assert masks.mean(dim=(1, 2)).tolist() == pytest.approx([0.25] * 3, abs=1e-3)


def test_a_value_leaves_a_sure_image_without_a_mask(maps):
    selection = Selection(None, 0.5)
    both = torch.cat((maps, torch.zeros_like(maps)))
    masks = selection.regions(both, selection.thresholds(both))
    assert masks.sum(dim=(1, 2)).tolist() == [4 * 4 + 10 * 16, 0]


@pytest.mark.parametrize("given", [(None, None), (5.0, 1.0)])
def test_exactly_one_threshold_is_asked_for(maps, given):
    with pytest.raises(ValueError, match="one threshold"):
        Selection(*given).thresholds(maps)


@pytest.mark.parametrize("selection", [Selection(80.0), Selection(None, 0.3)], ids=str)
def test_masks_do_not_depend_on_the_batch(selection):
    maps = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = maps * torch.tensor([1.0, 5.0, 0.2])[:, None, None]

    def masks(maps):
        return selection.regions(maps, selection.thresholds(maps))

    assert torch.equal(masks(maps), torch.cat([masks(map_[None]) for map_ in maps]))


def test_boxes_hold_their_regions_the_largest_first(maps):
    selection = Selection(None, 0.5)
    masks = selection.regions(maps, selection.thresholds(maps))
    assert corners(masks) == [[[40, 30, 56, 40], [8, 10, 12, 14]]]


def test_small_regions_are_left_out_before_the_mask_grows(maps):
    selection = Selection(None, 0.5, grow=3, minimum_area=20)
    masks = selection.regions(maps, selection.thresholds(maps))
    assert corners(masks) == [[[37, 27, 59, 43]]]


def test_segments_have_crops_around_their_boxes_and_masks_of_their_own(maps):
    selection = Selection(None, 0.5, feather=40)
    masks = selection.regions(maps, selection.thresholds(maps))
    soft = selection.soften(masks)
    (shape, (large, small)), *rest = segments(masks, soft, maps.clamp(max=1.5) / 1.5, around=3.0)
    assert rest == []
    assert shape == (64, 64)
    assert large.bbox == [40, 30, 56, 40]
    assert large.crop_region == [24, 20, 64, 50]
    assert large.cropped_mask.shape == (30, 40)
    assert (large.confidence, small.confidence) == pytest.approx((1.0, 2 / 3))
    everywhere = segments(masks, soft, maps, around=30.0)[0][1]
    assert everywhere[0].cropped_mask[11, 9] == 0
    assert everywhere[1].cropped_mask[35, 50] == 0


def test_an_empty_mask_has_no_boxes():
    masks = torch.zeros(2, 8, 8)
    assert corners(masks) == [[], []]
    assert [items for _, items in segments(masks, masks, masks)] == [[], []]
