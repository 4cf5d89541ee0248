"""Plots: what is drawn is where the numbers say."""

import pytest
import torch

from bayesdiff_core.render.plot import plot_histogram, plot_steps
from bayesdiff_core.render.text import draw_text, text_width

CURVE = torch.tensor([0.98, 0.60, 0.20])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def curve_rows(picture: torch.Tensor) -> torch.Tensor:
    """Mean row of the bold curve in every column where it is, from left to right."""
    on_curve = ((picture - CURVE).abs().amax(dim=-1) < 0.05).float()
    columns = on_curve.sum(dim=0) > 0
    rows = torch.arange(picture.shape[0], dtype=torch.float32)
    return ((on_curve * rows[:, None]).sum(dim=0) / on_curve.sum(dim=0))[columns]


def test_rising_uncertainty_is_a_rising_curve_across_the_picture():
    rows = curve_rows(plot_steps(torch.linspace(0, 1, 20)))
    assert len(rows) > 0.8 * 512
    # Rows count downwards; half a pixel is the stairs of the drawing.
    assert (rows.diff() <= 0.5).all()
    assert rows[0] - rows[-1] > 0.5 * 256


def test_curve_of_the_steps_does_not_depend_on_the_unit():
    totals = noise(12).abs().cumsum(0)
    rows = curve_rows(plot_steps(totals))
    # 1000 times larger numbers are wider, so that the curve has a few columns less.
    other = curve_rows(plot_steps(1000.0 * totals))
    assert rows.min() == pytest.approx(other.min(), abs=1.0)
    assert rows.max() == pytest.approx(other.max(), abs=1.0)


def test_steps_that_were_not_evaluated_are_bridged():
    totals = torch.linspace(0, 1, 21)
    sparse = totals.clone()
    sparse[1::2] = float("nan")
    assert (plot_steps(totals) - plot_steps(sparse)).abs().mean() < 1e-3


def test_equal_images_look_like_one():
    totals = torch.linspace(0, 1, 20)
    one, three = plot_steps(totals), plot_steps(totals.repeat(3, 1))
    assert (one - three).abs().mean() < 2e-3


def test_nothing_to_plot_is_refused():
    with pytest.raises(ValueError, match="no step"):
        plot_steps(torch.full((2, 5), float("nan")))
    with pytest.raises(ValueError, match="NaN or infinite"):
        plot_histogram(torch.full((1, 4, 4), float("nan")))


def test_histogram_counts_pixels_wherever_they_are():
    maps = noise(2, 32, 32)
    shuffled = maps.flatten()[torch.randperm(2048, generator=torch.Generator().manual_seed(1))]
    assert torch.equal(plot_histogram(maps), plot_histogram(shuffled.reshape(1, 64, 32)))


@pytest.mark.parametrize("width", [384, 512, 1024])
@pytest.mark.parametrize(
    ("totals", "maps"),
    [
        (torch.linspace(0, 3e-5, 30), 1e-5 * noise(1, 16, 16).abs()),
        (torch.tensor([2.0]), torch.full((1, 8, 8), 0.3)),
        (-noise(3, 10).abs(), -1e4 * noise(3, 16, 16).abs()),
        (torch.zeros(4), torch.zeros(2, 8, 8)),
    ],
)
def test_pictures_are_in_range_for_any_numbers(width, totals, maps):
    for plot, numbers in ((plot_steps, totals), (plot_histogram, maps)):
        picture = plot(numbers, "std, latent units", width, width // 2)
        assert picture.shape == (width // 2, width, 3) and picture.dtype == torch.float32
        assert picture.min() >= 0 and picture.max() <= 1
        assert picture.std() > 0.01


@pytest.mark.parametrize("size", [13, 18, 36])
@pytest.mark.parametrize("text", ["0.0123", "std (latent units)"])
def test_text_fills_its_line_and_stays_within_its_width(size, text):
    width = text_width(text, size)
    picture = torch.zeros(size + 8, width + 8, 3).numpy()
    draw_text(picture, text, (4, 4), size, (1.0, 1.0, 1.0))
    ink = torch.from_numpy(picture).amax(dim=-1)
    rows, columns = torch.nonzero(ink > 0.3, as_tuple=True)
    assert rows.min() >= 4 and rows.max() < size + 4
    assert columns.min() >= 4 and columns.max() < width + 4
    assert rows.max() - rows.min() >= 0.55 * size and columns.max() - columns.min() > 0.8 * width
    # Strokes that never get near full ink are the pale hairlines that cannot be read.
    assert ink.max() > 0.9


def test_text_outside_the_picture_is_cut_off():
    picture = torch.zeros(20, 20, 3).numpy()
    draw_text(picture, "0.5", (100, 100), 13, (1.0, 1.0, 1.0))
    assert picture.max() == 0
    draw_text(picture, "0.5", (-5, -5), 13, (1.0, 1.0, 1.0), vertical=True)
