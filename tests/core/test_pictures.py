"""Pictures of maps: what each display shows, and what a colour bar adds."""

import pytest
import torch

from bayesdiff_core.render.heatmap import colorize
from bayesdiff_core.render.pictures import BAR_HEIGHT, DISPLAYS, Look, draw, draw_uncertainty
from bayesdiff_core.segments import Selection, corners


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 48, 64, generator=generator)
    images = torch.rand(2, 48, 64, 3, generator=generator)
    masks = torch.zeros(2, 48, 64)
    masks[:, 10:30, 20:40] = 1
    return maps, masks, images


def picture(scene, look, images=True):
    maps, masks, pictures = scene
    return draw(maps, maps, masks, pictures if images else None, look, "unit")


@pytest.mark.parametrize("display", DISPLAYS)
@pytest.mark.parametrize("images", [True, False], ids=["image", "alone"])
def test_every_display_is_a_batch_of_pictures(scene, display, images):
    result = picture(scene, Look(display), images)
    assert result.shape[0] == 2
    assert result.shape[1] == 48
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("scale", ["image", "batch"])
def test_an_overlay_leaves_the_surer_half_of_the_pixels_clear(scene, scale):
    maps, _, images = scene
    result = picture(scene, Look(opacity=1.0, scale=scale))
    clear = (result == images).all(dim=-1)
    assert clear.float().mean() == pytest.approx(0.5, abs=0.01)
    assert maps[clear].max() <= maps[~clear].min() + (0.1 if scale == "image" else 0)


def test_the_unsurest_pixels_of_an_overlay_are_pure_heat(scene):
    maps, _, _ = scene
    look = Look(opacity=1.0)
    limits = look.limits_of(maps)
    highest = maps >= limits[:, 1:, None]
    assert torch.equal(picture(scene, look)[highest], colorize(maps, limits)[highest])


def test_a_fixed_scale_gives_one_value_one_colour_in_every_run():
    look = Look("heatmap", scale="fixed", limits=(0.0, 2.0))
    small, large = torch.rand(1, 8, 8), 2 * torch.rand(1, 8, 8)
    small[0, 0, 0] = large[0, 0, 0] = 0.5
    colors = [draw(m, m, torch.zeros_like(m), None, look)[0, 0, 0] for m in (small, large)]
    assert torch.equal(*colors)


def test_a_colour_bar_enlarges_small_pictures_by_whole_pixels(scene):
    maps, _, _ = scene
    result = picture(scene, Look("heatmap", bar=True))
    factor = result.shape[1] // 48
    assert result.shape[1] == 48 * factor
    assert result.shape[1] >= BAR_HEIGHT
    heat = colorize(maps, Look().limits_of(maps))
    assert torch.equal(result[:, ::factor, : 64 * factor : factor], heat)


def test_the_mask_and_its_boxes_are_those_of_the_interpolated_map(scene):
    """On maps as large as the image, where interpolation changes nothing."""
    maps, _, images = scene
    selection = Selection(90.0, grow=2.0, feather=4.0)
    drawn = draw_uncertainty(maps, images, unit="unit", selection=selection)
    masks = selection.regions(maps, selection.thresholds(maps))
    assert torch.equal(drawn.mask, selection.soften(masks))
    assert drawn.boxes == corners(masks)
    assert [[s.bbox for s in found] for _, found in drawn.segments] == drawn.boxes
    assert torch.equal(drawn.picture, draw(maps, maps, masks, images, Look(), "unit"))


@pytest.mark.parametrize("images", [True, False], ids=["image", "alone"])
def test_everything_has_the_size_of_the_image_or_else_of_the_map(scene, images):
    maps, _, pictures = scene
    small = maps[:, ::4, ::4]
    drawn = draw_uncertainty(small, pictures if images else None)
    size = (48, 64) if images else (12, 16)
    assert drawn.picture.shape == (2, *size, 3)
    assert drawn.mask.shape == (2, *size)
    assert {shape for shape, _ in drawn.segments} == {size}
