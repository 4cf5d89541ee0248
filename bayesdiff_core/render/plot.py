"""How uncertainty builds up along the denoising steps, and how it is spread over the pixels.

Curves and areas are drawn three times too large and averaged down, letters are set by
`text`: at 512 pixels that looks as even as a plotting library, which is then not needed.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..map_checks import LARGEST, check_maps, check_shape, check_whole, percentiles
from .heatmap import Colormap, colorize, scale_limits
from .text import (
    BACKGROUND,
    FOREGROUND,
    MINIMUM_TEXT,
    Color,
    Picture,
    draw_text,
    nice_ticks,
    text_width,
)

__all__ = ["plot_histogram", "plot_steps"]

_OVERSAMPLING = 3
_BINS = 64
_SMALLEST = (64, 128)
_GRID: Color = (0.22, 0.22, 0.24)
_CURVE: Color = (0.98, 0.60, 0.20)
_FAINT: Color = (0.50, 0.36, 0.24)
_RIM: Color = (0.55, 0.55, 0.57)

_Numbers = NDArray[np.float64]


def plot_steps(totals: Tensor, unit: str = "", width: int = 512, height: int = 256) -> Tensor:
    """Total uncertainty of each image after each step, and their mean as a bold curve.

    Arguments:
        totals: Shape (B, K) or (K,); NaN at steps that were not evaluated, which are bridged.
        unit: Of the totals.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.

    Returns:
        RGB in [0, 1], float32, shape (height, width, 3).

    Raises:
        ValueError: If no step has a finite value for every image, or the picture is too small.
    """
    check_shape(totals, "The totals", "*S")
    if totals.ndim > 1:
        check_shape(totals, "The totals", "B", "K")
    curves = np.atleast_2d(totals.detach().double().cpu().numpy())
    known = (np.abs(curves) <= LARGEST).all(axis=0)
    if not known.any():
        raise ValueError(
            "There is no step with a finite uncertainty to plot; sample with a method that "
            "follows the uncertainty along the steps."
        )
    steps, curves = (np.arange(curves.shape[1]) + 1)[known], curves[:, known]
    end = max(float(steps[-1]), float(steps[0]) + 1.0)
    plot = _Plot((height, width), (float(steps[0]), end), _span(curves), whole_steps=True)
    for curve in curves if len(curves) > 1 else ():
        plot.line(steps, curve, _FAINT, 1.0)
    mean = curves.mean(axis=0)
    plot.area(steps, mean, _CURVE, 0.15)
    plot.line(steps, mean, _CURVE, 2.2)
    if len(steps) == 1:
        plot.line(np.array([steps[0], end]), np.repeat(mean, 2), _CURVE, 2.2)
    return plot.finish("Total uncertainty along the steps", unit, "step")


def plot_histogram(
    maps: Tensor,
    unit: str = "",
    width: int = 512,
    height: int = 256,
    colormap: Colormap = "inferno",
    limits: Tensor | None = None,
) -> Tensor:
    """Share of the pixels at each value, in the colours they have in the heatmap.

    The axis ends at the 99.9th percentile; the last bar counts what lies above.

    Arguments:
        maps: Shape (B, H, W); all their pixels are counted together.
        unit: Of the maps.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        colormap: The one of the heatmap.
        limits: Low and high of its scale, shape (2,); by default that shared by the batch.

    Returns:
        RGB in [0, 1], float32, shape (height, width, 3).

    Raises:
        ValueError: If maps or limits are not finite, or the picture is too small.
    """
    check_maps(maps)
    if limits is not None:
        check_shape(limits, "The limits", 2)
    low, high = percentiles(maps, (0.0, 99.9), shared=True)[0].tolist()
    if not high - low > 1e-6 * max(abs(low), abs(high)):
        margin = 0.05 * abs(low) or 0.5
        low, high = low - margin, high + margin
    values = maps.detach().cpu().double().numpy().clip(low, high)
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    shares = 100.0 * counts / values.size
    plot = _Plot((height, width), (low, high), (0.0, 1.06 * float(shares.max())))
    scale = scale_limits(maps, "batch")[:1] if limits is None else limits.reshape(1, 2)
    middles = torch.from_numpy((edges[1:] + edges[:-1]) / 2).float()
    plot.bars(edges, shares, colorize(middles[None, None], scale, colormap)[0, 0].detach().numpy())
    return plot.finish("Pixels", "%", unit or "uncertainty")


class _Plot:
    """A plot area with its grid, drawn enlarged, and the letters around it, drawn at the end."""

    def __init__(
        self,
        size: tuple[int, int],
        horizontal: tuple[float, float],
        vertical: tuple[float, float],
        whole_steps: bool = False,
    ) -> None:
        for side, least in zip(size, _SMALLEST, strict=True):
            check_whole(side, "The side of a plot", least)
        self.text = max(MINIMUM_TEXT, round(size[1] / 34))
        self.horizontal, self.vertical = horizontal, vertical
        self.rows = nice_ticks(*vertical, 4)
        self.columns = nice_ticks(*horizontal, 6)
        if whole_steps:
            whole = {round(value): value for value, _ in self.columns if value == round(value)}
            self.columns = [(value, str(step)) for step, value in whole.items()]
        labels = max((text_width(label, self.text) for _, label in self.rows), default=0)
        self.left, self.right = labels + self.text, size[1] - self.text - self.text // 2
        self.top, self.bottom = 2 * self.text + self.text // 2, size[0] - 3 * self.text
        enlarged = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING, 1)
        self.canvas: Picture = np.tile(np.array(BACKGROUND, dtype=np.float32), enlarged)
        for value, _ in self.rows:
            self.line(np.array(horizontal), np.array([value, value]), _GRID, 1.0)

    def place(self, x: _Numbers, y: _Numbers) -> _Numbers:
        """Pixels of the picture, shape (N, 2)."""
        u = (x - self.horizontal[0]) / (self.horizontal[1] - self.horizontal[0])
        v = (y - self.vertical[0]) / (self.vertical[1] - self.vertical[0])
        across = self.left + u * (self.right - self.left)
        return np.stack([across, self.bottom - v * (self.bottom - self.top)], axis=-1)

    def line(self, x: _Numbers, y: _Numbers, color: Color, width: float) -> None:
        points = np.rint(self.place(x, y) * _OVERSAMPLING).astype(np.int32)
        thickness = max(1, round(width * _OVERSAMPLING * self.text / 15))
        cv2.polylines(self.canvas, [points], False, color, thickness)

    def area(self, x: _Numbers, y: _Numbers, color: Color, opacity: float) -> None:
        base = np.full(2, np.clip(0.0, *self.vertical))
        outline = np.concatenate([self.place(x, y), self.place(x[[-1, 0]], base)])
        self._fill(outline, color, opacity)

    def bars(self, edges: _Numbers, heights: _Numbers, colors: Picture) -> None:
        """Bars in their colours, over a strip of all colours, for most bars of a tail are low."""
        strip = 0.3 * self.text * np.array([[0, 1], [0, 0.2], [0, 0.2], [0, 1]])
        for start, stop, height, color in zip(edges[:-1], edges[1:], heights, colors, strict=True):
            paint = (float(color[0]), float(color[1]), float(color[2]))
            across = np.array([start, start, stop, stop])
            self._fill(self.place(across, np.array([0.0, height, height, 0.0])), paint, 1.0)
            self._fill(self.place(across, np.zeros(4)) + strip, paint, 1.0)
        # The lowest colours are as dark as the ground; a rim keeps their bars in sight.
        self.line(np.repeat(edges, 2)[1:-1], np.repeat(heights, 2), _RIM, 1.0)

    def finish(self, title: str, unit: str, x_label: str) -> Tensor:
        """The picture with its letters, shape (height, width, 3)."""
        height, width = (side // _OVERSAMPLING for side in self.canvas.shape[:2])
        picture: Picture = np.zeros((height, width, 3), dtype=np.float32)
        cv2.resize(self.canvas, (width, height), picture, interpolation=cv2.INTER_AREA)
        half = self.text // 2
        heading = f"{title} ({unit})" if unit else title
        draw_text(picture, heading, (half, half), self.text, FOREGROUND)
        for value, label in self.rows:
            _, y = self.place(np.array(self.horizontal[0]), np.array(value))
            draw_text(picture, label, (self.left - half, y), self.text, FOREGROUND, (1.0, 0.5))
        for value, label in self.columns:
            x, _ = self.place(np.array(value), np.array(self.vertical[0]))
            place = (x, self.bottom + 0.4 * self.text)
            draw_text(picture, label, place, self.text, FOREGROUND, (0.5, 0.0))
        middle = ((self.left + self.right) / 2, height - 0.3 * self.text)
        draw_text(picture, x_label, middle, self.text, FOREGROUND, (0.5, 1.0))
        return torch.from_numpy(picture)

    def _fill(self, outline: _Numbers, color: Color, opacity: float) -> None:
        points = np.rint(outline * _OVERSAMPLING).astype(np.int32)
        layer = self.canvas.copy() if opacity < 1.0 else self.canvas
        cv2.fillPoly(layer, [points], color)
        if opacity < 1.0:
            self.canvas += np.float32(opacity) * (layer - self.canvas)


def _span(curves: _Numbers) -> tuple[float, float]:
    """A vertical range from zero that leaves some air above the highest value."""
    low, high = min(0.0, float(curves.min())), max(0.0, float(curves.max()))
    return (low, high + 0.06 * (high - low)) if high > low else (0.0, 1.0)
