"""Brute force beside the methods, as pictures: docs/images/maps.png.

    python -m benchmarks.fidelity.pictures [--models digits emoji letters] [--members 64]

Rows are the first two images of each model's first cell in `benchmarks.fidelity` (ddim, cfg 1),
which nobody chose. A map is a per-pixel standard deviation from 0 to its own 99th percentile.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from torch import Tensor

from bayesdiff_core.methods import PRESETS, BayesDiff, Ensemble, Method
from demo.bundle import load_decoder

from ..experiment import command_line
from .run import MODELS, cells_for, run
from .truth import Cell, truth_for

__all__ = ["columns", "draw"]

IMAGES = 2

METHODS: dict[str, Method] = {
    **PRESETS,
    "ensemble of 3 runs": Ensemble(3, seed=77),
    "published, S = 10": BayesDiff(10),
}


def columns(cell: Cell, members: int) -> dict[str, Tensor]:
    """What is drawn of a cell: pictures (B, H, W, 3) first, then maps (B, H, W) by name."""
    truth = truth_for(cell, members)
    found = {"image": pictures(cell.setting.model, truth.images), "brute force": truth.std}
    return found | {name: run(method, cell)[0] for name, method in METHODS.items()}


def pictures(model: str, latents: Tensor) -> Tensor:
    """RGB in [0, 1] (B, H, W, 3) of latents (B, C, h, w)."""
    images = load_decoder(model)(latents).expand(-1, 3, -1, -1)
    return ((images.clamp(-1, 1) + 1) / 2).movedim(1, -1)


def draw(rows: dict[str, dict[str, Tensor]], path: Path) -> None:
    """Write one row per image and one column per method to `path`."""
    names = list(next(iter(rows.values())))
    height = IMAGES * len(rows)
    figure, axes = plt.subplots(height, len(names), figsize=(1.5 * len(names), 1.55 * height))
    for (model, found), block in zip(
        rows.items(), axes.reshape(len(rows), IMAGES, -1), strict=True
    ):
        for i, line in enumerate(block):
            for name, axis in zip(names, line, strict=True):
                values = found[name][i]
                scale = {} if values.ndim == 3 else {"vmin": 0, "vmax": values.quantile(0.99)}
                axis.imshow(values, cmap="inferno", interpolation="nearest", **scale)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            line[0].set_ylabel(model)
    for name, axis in zip(names, axes[0], strict=True):
        axis.set_title(name, fontsize=9)
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = command_line("fidelity.pictures", __doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--members", type=int, default=64, help="members of the truth")
    parser.add_argument("--output", type=Path, default=Path("docs/images/maps.png"))
    arguments = parser.parse_args()
    cells = {model: cells_for(model, False, 8, 1)[0] for model in arguments.models}
    rows = {model: columns(cell, arguments.members) for model, cell in cells.items()}
    draw(rows, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
