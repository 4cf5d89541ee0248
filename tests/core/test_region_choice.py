"""Regions are found, judged and composed one by one, and every pixel has one source."""

import torch

from bayesdiff_core.resample.region_choice import (
    compose,
    paint,
    pick_regions,
    region_boxes,
    region_labels,
    region_scores,
)


def two_regions(soft=True):
    """A large square with a soft edge at the left, a small one with its own at the right."""
    mask = torch.zeros(1, 1, 12, 20)
    if soft:
        mask[..., 1:9, 1:10] = 0.3
        mask[..., 1:7, 10:18] = 0.4
    mask[..., 2:8, 2:8] = 1
    mask[..., 2:6, 13:17] = 0.8
    return mask


def test_soft_edges_are_shared_out_among_the_regions_they_belong_to():
    mask = two_regions()
    labels = region_labels(mask)[0]
    assert torch.equal(labels > 0, mask[0, 0] > 0)
    assert (labels[2:8, 2:8] == 1).all() and (labels[2:6, 13:17] == 2).all()
    # The edges touch at column 10; each side goes with the nearer square.
    assert labels[4, 9] == 1 and labels[4, 11] == 2
    assert labels.max() == 2


def test_faint_parts_are_regions_of_their_own_and_nothing_is_lost():
    mask = two_regions(soft=False)
    mask[..., 10:12, 0:3] = 0.2
    labels = region_labels(mask)[0]
    assert sorted(labels.unique().tolist()) == [0, 1, 2, 3]
    assert torch.equal(labels > 0, mask[0, 0] > 0)
    assert region_labels(torch.full((1, 1, 4, 4), 0.3)).unique().tolist() == [1]
    assert not region_labels(torch.zeros(1, 1, 4, 4)).any()


def test_the_frames_of_a_video_share_their_regions():
    mask = torch.zeros(1, 1, 3, 6, 6)
    mask[:, :, 0, :2, :2] = 1
    mask[:, :, 1, 1:3, 1:3] = 1
    mask[:, :, 2, 5, 5] = 1
    labels = region_labels(mask)
    assert labels.shape == (1, 3, 6, 6)
    assert labels[0, 0, 0, 0] == labels[0, 1, 2, 2] == 1
    assert labels[0, 2, 5, 5] == 2
    assert torch.equal(labels > 0, mask[:, 0] > 0)


def test_scores_are_weighted_means_inside_each_region():
    mask = two_regions()
    labels = region_labels(mask)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 1, 12, 20, generator=generator)
    scores = region_scores(maps, mask, labels)
    assert scores.shape == (3, 1, 2)
    for region in (1, 2):
        weights = mask[0, 0] * (labels[0] == region)
        expected = (maps[:, 0] * weights).sum((1, 2)) / weights.sum()
        torch.testing.assert_close(scores[:, 0, region - 1], expected)


def test_images_with_fewer_regions_have_no_score_there_and_take_nothing():
    mask = torch.cat([two_regions(), torch.ones(1, 1, 12, 20), torch.zeros(1, 1, 12, 20)])
    labels = region_labels(mask)
    scores = region_scores(torch.rand(4, 3, 12, 20), mask, labels)
    assert scores.isnan().all(0).tolist() == [[False, False], [False, True], [True, True]]
    picked = pick_regions(scores)
    assert (picked[scores.isnan().all(0)] == -1).all()
    assert (picked[~scores.isnan().all(0)] >= 0).all()


def test_every_region_takes_its_own_best_or_stays():
    scores = torch.tensor([[[1.0, 5.0, 9.0]], [[2.0, 4.0, 8.0]]])
    original = torch.tensor([[3.0, 4.5, 7.0]])
    picked = pick_regions(scores, original)
    assert picked.tolist() == [[0, 1, -1]]
    assert pick_regions(scores).tolist() == [[0, 1, 1]]


def test_composing_takes_each_pixel_from_its_source_to_the_bit():
    mask = two_regions()
    labels = region_labels(mask)
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randn(2, 1, 3, 12, 20, generator=generator)
    original = torch.randn(1, 3, 12, 20, generator=generator)
    take = paint(torch.tensor([[1, -1]]), labels)
    result = compose(candidates, original, take)
    first = (labels == 1)[:, None].expand_as(original)
    assert torch.equal(result[first], candidates[1][first])
    assert torch.equal(result[~first], original[~first])
    maps = compose(candidates[:, :, 0], original[:, 0], take)
    assert torch.equal(maps, result[:, 0])


def test_boxes_hold_a_region_with_its_soft_edge():
    mask = torch.cat([two_regions(), torch.zeros(1, 1, 12, 20)])
    labels = region_labels(mask)
    (large, small), nothing = region_boxes(labels)
    assert nothing == []
    assert (large.x, large.y, large.height, large.area) == (1, 1, 8, int((labels == 1).sum()))
    for box, region in ((large, 1), (small, 2)):
        inside = labels[0, box.y : box.y + box.height, box.x : box.x + box.width]
        assert (inside == region).sum() == box.area
        assert (labels == region).sum() == box.area


def test_the_box_of_a_video_covers_all_its_frames():
    labels = torch.zeros(1, 2, 4, 6, dtype=torch.int32)
    labels[0, 0, 1, 1] = 1
    labels[0, 1, 2, 1:4] = 1
    ((box,),) = region_boxes(labels)
    assert box == (1, 1, 3, 2, 4)
