"""The fixture that holds the viewer's JavaScript to the core: masks, interpolation, colours.

`tests/js/parity.test.js` compares the viewer with this file's fixture, the test below compares the
core with it. After a change that is meant, write it again with `python -m
tests.core.test_viewer_parity`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdiff_core.render.heatmap import COLORMAPS, color_table, colorize, normalize
from bayesdiff_core.render.upsample import upsample
from bayesdiff_core.segments import Selection

FIXTURE = Path(__file__).parents[1] / "js" / "fixtures" / "parity.json"
GROWTHS = (-3.0, -2.5, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2**0.5, 1.5, 2.0, 2.5, 4.0)


def noise(height: int, width: int) -> Tensor:
    """Multiples of 1 / 64 in [-1, 1) without structure, which every machine computes alike."""
    places = torch.arange(height * width)
    return ((places * places * 37 + places * 11) % 127 / 64 - 1).reshape(height, width)


def maps() -> dict[str, Tensor]:
    """Maps (h, w) by name; all but `tenths` have values that are exact in single precision."""
    pixel = torch.zeros(9, 9)
    pixel[4, 5] = 1.0
    border = torch.full((7, 11), -2.0)
    border[:3, 8:], border[6, :2] = 1.0, -1.0
    corners = torch.eye(8)
    corners[0, 6:], corners[6, 1] = 2.0, 0.5
    return {
        "constant": torch.full((5, 6), 0.25),
        "one pixel": pixel,
        "at the border": border,
        "touching corners": corners,
        "negative": noise(8, 10) - 3.0,
        "wide": noise(5, 13),
        "one row": noise(1, 12),
        "tenths": (torch.arange(12, dtype=torch.float64) / 10).float().reshape(3, 4),
    }


def smooth_map() -> Tensor:
    return upsample(noise(6, 8)[None], (24, 32))[0]


def selections() -> Iterator[Selection]:
    for growth in GROWTHS:
        yield Selection(percentile=70.0, grow=growth)
    for percentile in (0.0, 50.0, 97.5, 100.0):
        yield Selection(percentile=percentile)
    for value in (-10.0, -2.0, 0.1, 0.25, 10.0):
        yield Selection(percentile=None, value=value)
        yield Selection(percentile=None, value=value, grow=-1.5)
        yield Selection(percentile=None, value=value, grow=1.5)
    for area in (1, 2, 4, 30):
        yield Selection(percentile=60.0, minimum_area=area)
        yield Selection(percentile=60.0, minimum_area=area, grow=1.0)


def masks() -> list[dict[str, Any]]:
    """Masks of 0 and 1 in the size of the map, row by row."""
    return [
        {
            "map": name,
            "threshold": threshold_of(selection, values),
            "grow": selection.grow,
            "minimum_area": selection.minimum_area,
            "mask": "".join("01"[int(pixel)] for pixel in mask_of(selection, values).flatten()),
        }
        for name, values in maps().items()
        for selection in selections()
    ]


def threshold_of(selection: Selection, values: Tensor) -> float:
    """The threshold as the viewer has it: what the user typed, or a percentile."""
    if selection.value is not None:
        return selection.value
    return float(selection.thresholds(values[None]))


def mask_of(selection: Selection, values: Tensor, factor: int = 1) -> Tensor:
    """The mask on an image that is `factor` times as large as the map."""
    size = (values.shape[0] * factor, values.shape[1] * factor)
    return selection.regions(upsample(values[None], size), selection.thresholds(values[None]))[0]


def upsampled() -> list[dict[str, Any]]:
    """Maps on grids several times as large: by 4, 3 and 2, and in their own size."""
    sizes = {(5, 13): 4, (9, 7): 4, (1, 12): 4, (1, 70): 3, (1, 100): 2, (1, 130): 1}
    return [
        {
            **entry(noise(height, width)),
            "factor": factor,
            "result": numbers(upsample(noise(height, width)[None], (height * k, width * k))),
        }
        for (height, width), factor in sizes.items()
        for k in [factor]
    ]


def coarse() -> list[dict[str, Any]]:
    """Shares of an image that masks cover, where the image is larger than the viewer's grid."""
    smooth = smooth_map()
    return [
        {
            "map": "smooth",
            "pixels": pixels,
            "threshold": threshold_of(selection, smooth),
            "grow": growth,
            "share": float(mask_of(selection, smooth, 4 * pixels).mean()),
        }
        for pixels in (1, 2, 4)
        for growth in (-4.0, -1.0, 1.0, 2.0, 8.0)
        for selection in [Selection(percentile=80.0, grow=growth)]
    ]


def colors() -> list[dict[str, Any]]:
    """Colours in [0, 255] and opacities in [0, 1] of values that the viewer tells apart."""
    # The viewer has 1024 levels; these values are some of them.
    ramp = (torch.arange(-55, 1100, 11) / 256 - 1)[None]
    ends = (-1.0, -1.0 + 1023 / 256)
    step = 2.0**-23
    close = 1.0 + step * torch.tensor([[-4.0, 0.0, 16.0, 40.0]])
    cases = [(ramp, ends, name) for name in COLORMAPS]
    cases += [(ramp, (1.0, 1.0), "inferno"), (torch.full((2, 2), 3.0), (3.0, 3.0), "turbo")]
    cases += [
        (close, (1.0, 1.0 + 8 * step), "viridis"),
        (close, (1.0, 1.0 + 16 * step), "viridis"),
    ]
    return [
        {
            **entry(values),
            "limits": ends,
            "colormap": name,
            "colors": numbers(255 * colorize(values[None], limits, name), 4),
            "opacities": numbers(normalize(values[None], limits), 6),
        }
        for values, ends, name in cases
        for limits in [torch.tensor([ends])]
    ]


def entry(values: Tensor) -> dict[str, Any]:
    return {"height": values.shape[0], "width": values.shape[1], "values": numbers(values)}


def numbers(values: Tensor, digits: int | None = None) -> list[float]:
    """Row by row, exact unless digits after the point are given."""
    flat = values.flatten().tolist()
    return flat if digits is None else [round(value, digits) for value in flat]


def fixture() -> dict[str, Any]:
    return {
        "maps": {name: entry(m) for name, m in {**maps(), "smooth": smooth_map()}.items()},
        "masks": masks(),
        "upsampled": upsampled(),
        "coarse": coarse(),
        "colormaps": {name: color_table(name).flatten().tolist() for name in COLORMAPS},
        "colors": colors(),
    }


def test_the_fixture_of_the_viewer_is_what_the_core_computes():
    kept = json.loads(FIXTURE.read_text())
    today = json.loads(text_of(fixture()))
    for part in ("maps", "masks", "colormaps"):
        assert kept[part] == today[part], part
    # What is interpolated may differ by a rounding from machine to machine.
    for part, name, tolerance in (
        ("upsampled", "result", 1e-5),
        ("coarse", "share", 1e-9),
        ("colors", "colors", 2e-4),
        ("colors", "opacities", 2e-6),
    ):
        for old, new in zip(kept[part], today[part], strict=True):
            np.testing.assert_allclose(old[name], new[name], rtol=0, atol=tolerance)
            rest = old.keys() - {"result", "share", "colors", "opacities"}
            assert all(old[key] == new[key] for key in rest), part
            assert old.keys() == new.keys()


def test_the_cases_of_the_fixture_differ():
    """Growths and areas that change nothing would hold nothing together."""
    cases = [case for case in masks() if case["map"] in ("wide", "negative")]
    grown = {case["mask"] for case in cases if case["minimum_area"] == 0}
    filtered = {case["mask"] for case in cases if case["minimum_area"] > 0}
    assert len(grown) > 2 * len(GROWTHS) - 6
    assert len(filtered - grown) >= 4


def text_of(parts: dict[str, Any]) -> str:
    """JSON with a line for each case, so that a difference shows which one it is."""
    lines = []
    for name, cases in parts.items():
        named = cases.items() if isinstance(cases, dict) else ((None, case) for case in cases)
        rows = [
            (f"{json.dumps(key)}: " if key else "") + json.dumps(case, separators=(",", ":"))
            for key, case in named
        ]
        opening, closing = "{}" if isinstance(cases, dict) else "[]"
        lines.append(f'"{name}": {opening}\n' + ",\n".join(rows) + f"\n{closing}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FIXTURE.parent.mkdir(exist_ok=True)
    FIXTURE.write_text(text_of(fixture()))
