"""Regions are found, judged and composed one by one, and every pixel has one source."""

import pytest
import torch

from bayesdiff_core.recording import Recording, splice, take_pixels
from bayesdiff_core.resample.candidates import Candidates
from bayesdiff_core.resample.region_choice import (
    choose_regions,
    composed_latents,
    uncertainty_of,
)
from bayesdiff_core.resample.regions import region_boxes, region_labels, region_scores
from bayesdiff_core.resample.rules import RULES, paint
from bayesdiff_core.signals import Contrast
from bayesdiff_core.uncertainty import RunSettings


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
    with_original = torch.cat([scores, torch.full_like(scores[:1], float("nan"))])
    picked = RULES["trajectory"].pick(with_original, keep=True)
    assert (picked[scores.isnan().all(0)] == -1).all()
    assert (picked[~scores.isnan().all(0)] >= 0).all()


def test_every_region_takes_its_own_best_or_stays():
    scores = torch.tensor([[[1.0, 5.0, 9.0]], [[2.0, 4.0, 8.0]], [[3.0, 4.5, 7.0]]])
    rule = RULES["auto"]
    assert rule.pick(scores, keep=True).tolist() == [[0, 1, -1]]
    assert rule.pick(scores, keep=False).tolist() == [[0, 1, 1]]
    assert RULES["random"].pick(scores, keep=True).tolist() == [[0, 0, 0]]


def test_composing_takes_each_pixel_from_its_source_to_the_bit():
    mask = two_regions()
    labels = region_labels(mask)
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randn(2, 1, 3, 12, 20, generator=generator)
    original = torch.randn(1, 3, 12, 20, generator=generator)
    take = paint(torch.tensor([[1, -1]]), labels)
    result = take_pixels(candidates.flatten(0, 1), original, [take])
    first = (labels == 1)[:, None].expand_as(original)
    assert torch.equal(result[first], candidates[1][first])
    assert torch.equal(result[~first], original[~first])
    maps = take_pixels(candidates[:, :, 0].flatten(0, 1), original[:, 0], [take])
    assert torch.equal(maps, result[:, 0])


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def found_candidates(known=True):
    """Three candidates of two images, the last 3 of 5 evaluations sampled again."""
    sigmas, schedule = torch.linspace(1, 0.2, 5), torch.linspace(1, 0, 6)
    before = Recording(
        randn(5, 2, 2, 6, 6, seed=1), randn(5, 2, 2, 6, 6, seed=2), sigmas, schedule,
        randn(2, 2, 6, 6, seed=3),
    )  # fmt: skip
    after = Recording(
        randn(3, 6, 2, 6, 6, seed=4), randn(3, 6, 2, 6, 6, seed=5), sigmas[2:], schedule,
        randn(6, 2, 6, 6, seed=6),
    )  # fmt: skip
    return Candidates(
        after.final,
        before.final,
        randn(6, 6, 6, seed=7).abs(),
        randn(2, 6, 6, seed=8).abs() if known else None,
        after,
        before,
    )


def two_halves():
    mask = torch.zeros(2, 1, 6, 6)
    mask[..., :2], mask[..., 4:] = 1, 1
    return mask


def test_a_choice_has_one_source_for_every_pixel_in_latents_maps_and_recording():
    found, mask = found_candidates(), two_halves()
    choice = choose_regions(found, mask, region_labels(mask), RULES["trajectory"])
    (take,) = choice.takes
    latents = composed_latents(found, choice)
    after = uncertainty_of(None, found, choice, mask, RunSettings(method="tangent"))
    assert after.settings.method is None
    for image, row, column in [(0, 0, 0), (1, 5, 5), (0, 3, 5), (1, 2, 3)]:
        source = int(take[image, row, column])
        assert (source == -1) if column == 3 else source in (-1, 0, 1, 2)
        of_latent = found.original[image] if source < 0 else found.latents[2 * source + image]
        assert torch.equal(latents[image, :, row, column], of_latent[:, row, column])
        record = found.before if source < 0 else found.recording
        which = image if source < 0 else 2 * source + image
        recorded = after.recording.states[-1, image, :, row, column]
        torch.testing.assert_close(recorded, record.states[-1, which, :, row, column])
    assert torch.equal(after.recording.states[:2], found.before.states[:2])
    assert torch.equal(after.recording.final, latents)


def test_a_recording_is_spliced_inside_the_mask_alone():
    found = found_candidates()
    mask = two_halves()
    mask[..., 1] = 0.25
    take = torch.full((2, 6, 6), -1)
    take[0, :2], take[1, 3:] = 1, 0
    joined = splice(found.before, found.recording, mask, [take, torch.full_like(take, -1)])
    old, new = found.before.denoised, found.recording.denoised
    assert joined.final.shape == (4, 2, 6, 6)
    assert torch.equal(joined.denoised[:, 2:], old)
    assert torch.equal(joined.denoised[:2, :2], old[:2])
    assert torch.equal(joined.denoised[-1, 0, :, 2:], old[-1, 0, :, 2:])
    # Candidate c of image b is row c * 2 + b; half inside the mask it is half taken.
    assert torch.equal(joined.denoised[-1, 0, :, :2, 0], new[-1, 2, :, :2, 0])
    blended = 0.25 * new[-1, 1, :, 3:, 1] + 0.75 * old[-1, 1, :, 3:, 1]
    torch.testing.assert_close(joined.denoised[-1, 1, :, 3:, 1], blended)


@pytest.mark.parametrize(
    ("rule", "known", "prompt", "signal"),
    [
        ("auto", True, True, "artifact"),
        ("auto", False, True, "contrast"),
        ("auto", True, False, "trajectory"),
        ("artifact", False, False, "trajectory"),
        ("contrast", True, True, "contrast"),
        ("trajectory", True, True, "trajectory"),
        ("random", True, True, "trajectory"),
        ("all", False, True, "contrast"),
    ],
)
def test_a_rule_compares_by_the_best_signal_that_is_known(rule, known, prompt, signal):
    found, mask = found_candidates(known), two_halves()
    judged = []

    def contrast_of(latents):
        judged.append(latents)
        return Contrast(randn(len(latents), 6, 6, seed=9), torch.ones(len(latents)))

    choice = choose_regions(
        found, mask, region_labels(mask), RULES[rule],
        contrast_of=contrast_of if prompt else None,
    )  # fmt: skip
    assert choice.signal == signal
    assert len(judged) == (signal in ("artifact", "contrast"))
    assert all(torch.equal(latents[-2:], found.original) for latents in judged)
    assert len(choice.takes) == (4 if rule == "all" else 1)


def test_a_rule_that_nothing_serves_says_so():
    mask = two_halves()
    with pytest.raises(ValueError, match="cannot be compared by contrast"):
        choose_regions(found_candidates(), mask, region_labels(mask), RULES["contrast"])


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
