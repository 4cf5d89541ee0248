"""A mask at the size of the latents: no part of it is lost, and nothing else is added to it."""

import pytest
import torch

from tests.host.resampling import resample
from tests.host.tiny import tiny_scene

IMAGE, LATENT = 32, 4
"""Sides in pixels; a latent pixel covers eight of them."""


@pytest.fixture(scope="module")
def reduce(host):
    """`latent_mask` at the size of latents of a shape."""
    latent_mask = host.module("nodes.host.validation").latent_mask
    return lambda mask, *shape: latent_mask(mask, torch.zeros(shape or (1, 4, LATENT, LATENT)))


@pytest.mark.parametrize("side", range(1, 7))
def test_a_square_marks_every_latent_pixel_that_it_touches(reduce, side):
    for top in range(8):
        for left in range(8):
            mask = torch.zeros(1, IMAGE, IMAGE)
            mask[:, 8 + top : 8 + top + side, 8 + left : 8 + left + side] = 1
            covered = mask.unfold(1, 8, 8).unfold(2, 8, 8).amax((-2, -1))
            assert torch.equal(reduce(mask)[:, 0], covered)


@pytest.mark.parametrize("row", [0, -1])
@pytest.mark.parametrize("column", [0, -1])
@pytest.mark.parametrize("size", [(32, 32), (33, 37), (100, 60), (5, 4), (4, 4), (2, 3), (1, 1)])
def test_a_single_pixel_in_a_corner_marks_that_corner(reduce, size, row, column):
    mask = torch.zeros(1, *size)
    mask[:, row, column] = 1
    found = reduce(mask)[0, 0]
    assert found[row, column] == 1
    if min(size) >= LATENT and size[0] % LATENT == size[1] % LATENT == 0:
        assert (found > 0).sum() == 1


@pytest.mark.parametrize("size", [(29, 43), (64, 64), (5, 7)])
def test_no_single_pixel_is_lost_and_none_reaches_far(reduce, size):
    for place in range(size[0] * size[1]):
        row, column = divmod(place, size[1])
        mask = torch.zeros(1, *size)
        mask[0, row, column] = 1
        rows, columns = reduce(mask)[0, 0].nonzero().unbind(1)
        assert len(rows) > 0
        for found, at, length in ((rows, row, size[0]), (columns, column, size[1])):
            assert ((found + 1) * length / LATENT > at).all()
            assert (found * length / LATENT < at + 1).all()


def test_a_full_mask_stays_full_and_an_empty_one_empty(reduce):
    for size in ((32, 32), (35, 30), (4, 4), (2, 9)):
        assert (reduce(torch.ones(1, *size)) == 1).all()
        assert (reduce(torch.zeros(1, *size)) == 0).all()


def test_soft_edges_stay_soft(reduce):
    ramp = torch.linspace(0, 1, IMAGE).expand(1, IMAGE, IMAGE)
    found = reduce(ramp)[0, 0, 0]
    assert torch.equal(found, ramp[0, 0].view(LATENT, 8).amax(1))
    faint = torch.zeros(1, IMAGE, IMAGE)
    faint[0, 13, 2] = 0.25
    assert reduce(faint).sum() == reduce(faint)[0, 0, 1, 0] == 0.25


def test_a_mask_that_grows_is_interpolated_as_the_host_does(reduce):
    import comfy.utils

    generator = torch.Generator().manual_seed(0)
    for size in ((4, 4), (3, 2), (4, 1)):
        mask = torch.rand(1, *size, generator=generator)
        assert torch.equal(reduce(mask), comfy.utils.reshape_mask(mask, (1, 1, LATENT, LATENT)))


def test_an_axis_that_shrinks_loses_nothing_where_the_other_grows(reduce):
    mask = torch.zeros(1, IMAGE, 2)
    mask[0, 9, 1] = 1
    found = reduce(mask)[0, 0]
    assert found[1, -1] == 1
    assert (found[[0, 2, 3]] == 0).all()


def test_one_mask_serves_all_latents_and_a_batch_each_its_own(reduce):
    mask = torch.zeros(3, 1, IMAGE, IMAGE)
    for image in range(3):
        mask[image, 0, 8 * image, 3] = 1
    found = reduce(mask, 3, 4, LATENT, LATENT)
    assert found.nonzero().tolist() == [[image, 0, image, 0] for image in range(3)]
    assert torch.equal(reduce(mask[:, 0], 3, 4, LATENT, LATENT), found)
    one = reduce(mask[0, 0], 3, 4, LATENT, LATENT)
    assert one.nonzero().tolist() == [[image, 0, 0, 0] for image in range(3)]
    with pytest.raises(ValueError, match="There are 2 masks but 3 latents"):
        reduce(mask[:2], 3, 4, LATENT, LATENT)


def test_no_frame_of_a_video_is_lost(reduce):
    """Seventeen frames of a mask on five of the latent."""
    for frame in range(17):
        mask = torch.zeros(17, IMAGE, IMAGE)
        mask[frame, 31, 0] = 1
        found = reduce(mask, 1, 16, 5, LATENT, LATENT)[0, 0]
        frames, rows, columns = found.nonzero().unbind(1)
        assert len(frames) > 0 and set(rows.tolist()) == {3} and set(columns.tolist()) == {0}
        assert (frames * 17 / 5 < frame + 1).all() and ((frames + 1) * 17 / 5 > frame).all()


def test_videos_have_one_mask_or_each_its_own(reduce):
    size = (2, 16, 3, LATENT, LATENT)
    still = torch.zeros(1, IMAGE, IMAGE)
    still[0, 0, 0] = 1
    assert (reduce(still, *size)[:, 0, :, 0, 0] == 1).all()
    each = torch.zeros(2, 3, IMAGE, IMAGE)
    each[0, 1, 0, 0] = each[1, 2, 31, 31] = 1
    expected = [[0, 0, 1, 0, 0], [1, 0, 2, 3, 3]]
    assert reduce(each, *size).nonzero().tolist() == expected
    assert reduce(each.flatten(0, 1), *size).nonzero().tolist() == expected
    assert reduce(each[:, None], *size).nonzero().tolist() == expected
    frames = reduce(each[0].unsqueeze(1), *size)
    assert frames.nonzero().tolist() == [[video, 0, 1, 0, 0] for video in range(2)]
    with pytest.raises(ValueError, match="There are 3 masks but 2 latents"):
        reduce(torch.ones(3, 2, IMAGE, IMAGE), *size)


@pytest.mark.parametrize("shape", [(1, 0, 8), (0, 8, 8), (1, 8, 0), (8,), ()])
def test_a_mask_without_pixels_is_refused(reduce, shape):
    with pytest.raises(ValueError, match="it has no pixels"):
        reduce(torch.zeros(shape))


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float16, torch.float64])
def test_any_kind_of_number_will_do_and_stays_within_0_and_1(reduce, kind):
    mask = torch.zeros(1, IMAGE, IMAGE, dtype=kind)
    mask[0, 12, 12] = True if kind == torch.bool else 7
    found = reduce(mask)
    assert found.dtype == torch.float32
    assert found.sum() == found[0, 0, 1, 1] == 1


def test_a_single_pixel_is_sampled_again_and_nothing_else(host):
    """A mask of eight times the size of the latents, as with a checkpoint."""
    scene = tiny_scene(host, "unet", batch=1)
    samples, uncertainty = scene.uncertain(contrast=False)
    mask = torch.zeros(1, 64, 64)
    mask[0, 41, 22] = 1
    found, _, report = resample(scene, samples, uncertainty, mask=mask, keep_original=False)
    assert "empty" not in report
    changed = (found != samples).any(1)[0]
    assert changed.nonzero().tolist() == [[5, 2]]


def test_faint_specks_far_apart_are_regions_of_their_own(scene):
    samples, uncertainty = scene.uncertain(contrast=False)
    mask = torch.zeros(1, 128, 128)
    mask[0, 3, 3], mask[0, 70, 70], mask[0, 127, 0] = 1, 0.3, 0.01
    found, _, report = resample(scene, samples, uncertainty, mask=mask, keep_original=False)
    changed = (found != samples).any(1)
    assert changed[0].nonzero().tolist() == [[0, 0], [8, 8], [15, 0]]
    assert report.count("image 1, region") == 3


def test_variants_of_videos_differ_each_where_it_is_uncertain(host):
    scene = tiny_scene(host, "wan", batch=2)
    samples, uncertainty = scene.uncertain(contrast=False)
    latent, _ = host.call(
        "BayesDiffDiversity",
        **{"model": scene.model, "latent": {"samples": samples}, "uncertainty": uncertainty},
        **{"positive": scene.positive, "negative": scene.negative, "seed": 1, "variants": 1},
        **{"denoise": 0.7, "signal": "trajectory", "percentile": 75.0},
    ).outputs
    free = host.module("nodes.variants").uncertain_part(uncertainty, "trajectory", 75.0)
    assert free.shape == (2, *samples.shape[2:])
    changed = (latent["samples"] != samples).any(1)
    assert torch.equal(changed, free > 0)
