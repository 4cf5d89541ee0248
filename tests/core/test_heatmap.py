"""Pictures of uncertainty: scales, colours, overlays, outlines and changes of resolution."""

import numpy as np
import pytest
import torch

from bayesdiff_core.render.heatmap import COLORMAPS, colorize, normalize, overlay, scale_limits
from bayesdiff_core.render.marks import GAP, color_bar, contour, side_by_side
from bayesdiff_core.render.text import nice_ticks
from bayesdiff_core.render.upsample import guided_upsample, upsample

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
DEUTERANOPIA = torch.tensor(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def linear(rgb: torch.Tensor) -> torch.Tensor:
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(rgb: torch.Tensor) -> torch.Tensor:
    return linear(rgb) @ torch.tensor([0.2126, 0.7152, 0.0722])


class TestScale:
    @pytest.mark.parametrize("mode", ["image", "batch"])
    @pytest.mark.parametrize(("factor", "offset"), [(1e-4, 0.0), (30.0, -7.0)])
    def test_percentile_scale_follows_the_unit_of_the_map(self, mode, factor, offset):
        maps = noise(3, 16, 16)
        other = factor * maps + offset
        expected = normalize(maps, scale_limits(maps, mode))
        # Only rounding of the affine change remains.
        torch.testing.assert_close(
            normalize(other, scale_limits(other, mode)), expected, atol=1e-5, rtol=0
        )

    def test_scale_of_an_image_does_not_depend_on_its_batch(self):
        maps = noise(4, 16, 16)
        alone = torch.cat([scale_limits(map_[None]) for map_ in maps])
        assert torch.equal(scale_limits(maps), alone)

    def test_shared_scale_is_the_same_for_all_and_fixed_one_is_as_given(self):
        maps = noise(3, 8, 8) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
        shared = scale_limits(maps, "batch")
        assert torch.equal(shared, shared[:1].expand(3, -1))
        fixed = scale_limits(maps, "fixed", fixed=(-0.5, 2.0))
        assert torch.equal(fixed, torch.tensor([[-0.5, 2.0]]).expand(3, -1))

    def test_few_extreme_pixels_do_not_change_the_picture_of_the_rest(self):
        maps = noise(1, 32, 32)
        spiked = maps.clone()
        spiked[0, 0, :4] = 1e6
        before, after = (
            normalize(maps, scale_limits(maps)),
            normalize(spiked, scale_limits(spiked)),
        )
        assert (before - after)[0, 1:].abs().max() < 0.1

    def test_single_pixel_above_a_constant_is_still_seen(self):
        maps = torch.zeros(1, 32, 32)
        maps[0, 5, 7] = 1.0
        assert torch.equal(normalize(maps, scale_limits(maps)), maps)

    @pytest.mark.parametrize("value", [0.0, -3.0, 1e-8, 0.1])
    def test_constant_map_gets_the_first_colour(self, value):
        maps = torch.full((2, 8, 8), value) * (1 + 1e-7 * noise(2, 8, 8))
        assert normalize(maps, scale_limits(maps)).max() == 0.0

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_diverged_map_is_refused_in_words(self, bad):
        maps = torch.zeros(1, 8, 8)
        maps[0, 2, 3] = bad
        with pytest.raises(ValueError, match=r"NaN or infinite.*sample again"):
            scale_limits(maps)

    @pytest.mark.parametrize("fixed", [None, (1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
    def test_fixed_scale_needs_ascending_limits(self, fixed):
        with pytest.raises(ValueError, match="low limit below the high one"):
            scale_limits(noise(1, 4, 4), "fixed", fixed=fixed)


class TestColors:
    @pytest.mark.parametrize("colormap", sorted(set(COLORMAPS) - {"turbo"}))
    def test_luminance_rises_with_the_value(self, colormap):
        ramp = torch.linspace(0, 1, 500)[None, None]
        shades = luminance(colorize(ramp, torch.tensor([[0.0, 1.0]]), colormap))[0, 0]
        # Colours of 8 bits are off by half a level, which in the dark is 2e-4 of luminance.
        assert (shades.diff() > -2e-4).all()
        assert shades[-1] > shades[0] + 0.4

    @pytest.mark.parametrize("colormap", ["inferno", "cividis"])
    def test_order_of_values_survives_a_colour_vision_deficiency(self, colormap):
        ramp = torch.linspace(0, 1, 21)[None, None]
        seen = linear(colorize(ramp, torch.tensor([[0.0, 1.0]]), colormap)) @ DEUTERANOPIA.T
        assert ((seen @ torch.tensor([0.2126, 0.7152, 0.0722])).diff() > 0).all()

    @pytest.mark.parametrize("colormap", COLORMAPS)
    def test_colours_are_in_range_and_continuous(self, colormap):
        ramp = torch.linspace(-0.5, 1.5, 4001)[None, None]
        colors = colorize(ramp, torch.tensor([[0.0, 1.0]]), colormap)
        assert colors.dtype == torch.float32 and colors.shape == (1, 1, 4001, 3)
        assert colors.min() >= 0 and colors.max() <= 1
        # 1/8 of a table step apart: a jump of a whole level would show as a band.
        assert colors.diff(dim=2).abs().max() < 0.5 * 8 / 255

    def test_unknown_colormap_is_answered_with_the_known_ones(self):
        with pytest.raises(ValueError, match="inferno, magma, viridis, cividis, turbo"):
            colorize(noise(1, 4, 4), torch.tensor([[0.0, 1.0]]), "jet")


class TestOverlay:
    def test_opacity_zero_is_the_image_and_one_is_the_heat_to_the_bit(self):
        image, heat = images(2, 8, 8, 3), images(2, 8, 8, 3, seed=1)
        assert torch.equal(overlay(image, heat, 0.0), image)
        assert torch.equal(overlay(image, heat, 1.0), heat)

    def test_sure_regions_stay_clear_to_the_bit(self):
        image, heat = images(1, 8, 8, 3), images(1, 8, 8, 3, seed=1)
        strength = torch.zeros(1, 8, 8)
        strength[0, :4] = 1.0
        mixed = overlay(image, heat, 0.6, strength)
        assert torch.equal(mixed[0, 4:], image[0, 4:])
        assert torch.equal(mixed[0, :4], overlay(image, heat, 0.6)[0, :4])

    def test_heat_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match="upsample the map"):
            overlay(images(1, 8, 8, 3), images(1, 4, 4, 3))


class TestUpsample:
    @pytest.mark.parametrize("size", [(64, 48), (21, 13), (5, 5)])
    def test_constants_and_bounds_are_kept(self, size):
        constant = torch.tensor([0.1, -2.7])[:, None, None].expand(2, 8, 6)
        resized = upsample(constant, size)
        assert torch.equal(resized, constant[:, :1, :1].expand(2, *size))
        maps = noise(2, 8, 6)
        resized = upsample(maps, size)
        assert (resized.amax(dim=(1, 2)) <= maps.amax(dim=(1, 2))).all()
        assert (resized.amin(dim=(1, 2)) >= maps.amin(dim=(1, 2))).all()

    @pytest.mark.parametrize("size", [(64, 64), (50, 70)])
    def test_guided_keeps_constants_and_bounds(self, size):
        guide = images(2, *size, 3)
        constant = torch.full((2, 8, 8), 0.1)
        assert torch.equal(guided_upsample(constant, guide), torch.full((2, *size), 0.1))
        maps = noise(2, 8, 8)
        result = guided_upsample(maps, guide)
        assert (result.amax(dim=(1, 2)) <= maps.amax(dim=(1, 2))).all()
        assert (result.amin(dim=(1, 2)) >= maps.amin(dim=(1, 2))).all()

    @pytest.mark.parametrize("edge", [60, 64, 67])
    def test_guided_puts_a_step_where_the_image_has_its_edge(self, edge):
        guide = torch.full((1, 128, 128, 3), 0.2)
        guide[:, :, edge:] = torch.tensor([0.7, 0.5, 0.4])
        sharp = torch.full((1, 128, 128), 1.0)
        sharp[:, :, edge:] = 3.0
        maps = torch.nn.functional.avg_pool2d(sharp[:, None], 8)[:, 0]
        # A pixel of the map is 8 wide: interpolation makes at most an eighth of the step in one.
        guided, plain = guided_upsample(maps, guide), upsample(maps, (128, 128))
        assert (guided.diff(dim=2)[:, :, edge - 1] > 0.8 * 2.0).all()
        assert (plain.diff(dim=2)[:, :, edge - 1] < 0.13 * 2.0).all()
        assert (guided - sharp).abs().mean() < 0.2 * (plain - sharp).abs().mean()

    def test_guided_follows_the_unit_of_the_map(self):
        maps, guide = noise(1, 8, 8), images(1, 64, 64, 3)
        expected = 5.0 * guided_upsample(maps, guide) - 2.0
        torch.testing.assert_close(
            guided_upsample(5.0 * maps - 2.0, guide), expected, atol=1e-5, rtol=1e-5
        )

    def test_guided_does_not_depend_on_the_batch(self):
        maps, guide = noise(3, 8, 8), images(3, 32, 32, 3)
        alone = [guided_upsample(maps[i : i + 1], guide[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(guided_upsample(maps, guide), torch.cat(alone))

    def test_guides_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match="3 uncertainty maps but 2 images"):
            guided_upsample(noise(3, 8, 8), images(2, 32, 32, 3))


class TestContour:
    def test_image_changes_only_near_the_border_of_the_region(self):
        image = images(1, 96, 96, 3)
        mask = torch.zeros(1, 96, 96)
        mask[0, 30:60, 20:70] = 1.0
        changed = (contour(image, mask) != image).any(dim=-1)[0]
        rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
        to_rows = torch.minimum((rows - 29.5).abs(), (rows - 59.5).abs())
        to_columns = torch.minimum((columns - 19.5).abs(), (columns - 69.5).abs())
        assert not changed[torch.minimum(to_rows, to_columns) > 5].any()
        assert changed[29:31, 25:65].all() and changed[35:55, 19:21].all()

    def test_empty_mask_leaves_the_image_to_the_bit(self):
        image = images(2, 40, 40, 3)
        assert torch.equal(contour(image, torch.zeros(2, 40, 40)), image)

    @pytest.mark.parametrize("ground", [0.0, 0.5, 1.0])
    def test_line_shows_on_any_ground(self, ground):
        mask = torch.zeros(1, 64, 64)
        mask[0, 20:44, 20:44] = 1.0
        drawn = contour(torch.full((1, 64, 64, 3), ground), mask)
        assert (drawn - ground).abs().max() > 0.4


class TestComposition:
    def test_row_holds_every_picture_to_the_bit(self):
        left, right = images(2, 16, 10, 3), images(1, 16, 5, 3, seed=1)
        row = side_by_side(left, right)
        assert row.shape == (2, 16, 15 + GAP, 3)
        assert torch.equal(row[:, :, :10], left)
        assert torch.equal(row[:, :, 10 + GAP :], right.expand(2, -1, -1, -1))

    def test_pictures_of_other_heights_are_refused(self):
        with pytest.raises(ValueError, match="same height"):
            side_by_side(images(1, 8, 8, 3), images(1, 9, 8, 3))

    @pytest.mark.parametrize("height", [64, 512, 1024])
    def test_bar_holds_the_colours_of_the_heatmap_in_order(self, height):
        limits = torch.tensor([[0.02, 0.13], [-4.0, 9.0]])
        bar = color_bar(height, limits, "viridis", "std")
        assert bar.shape[:2] == (2, height) and bar.dtype == torch.float32
        ends = colorize(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 1.0]]), "viridis")[0, 0]
        for end in ends:
            found = (bar - end).abs().amax(dim=-1) < 1e-3
            assert found.flatten(1).any(dim=1).all()
        row = (bar[0] - ends[1]).abs().amax(dim=-1).argmin() // bar.shape[2]
        assert row < height / 4

    def test_bar_too_low_for_numbers_is_refused(self):
        with pytest.raises(ValueError, match="64 pixels"):
            color_bar(32, torch.tensor([[0.0, 1.0]]))

    @pytest.mark.parametrize(
        ("low", "high"), [(0.0, 1.0), (-3.0, 12.0), (1e-5, 9e-5), (0.017, 0.103), (1e6, 4e6)]
    )
    @pytest.mark.parametrize("count", [2, 5, 9])
    def test_ticks_lie_within_the_limits_and_say_what_they_are(self, low, high, count):
        ticks = nice_ticks(low, high, count)
        assert 1 <= len(ticks) <= 1.5 * count + 1
        slack = 1e-6 * (high - low)
        for value, label in ticks:
            assert low - slack <= value <= high + slack
            assert float(label) == pytest.approx(value, rel=1e-9, abs=slack)
        assert len({label for _, label in ticks}) == len(ticks)
        steps = np.diff([value for value, _ in ticks])
        np.testing.assert_allclose(steps, steps[:1].repeat(len(steps)), rtol=1e-6)
