"""Pictures that show one label in every cell of a grid: what every bundled model draws."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Scene", "joined", "quadrants"]


@dataclass(frozen=True)
class Scene:
    """The array that is sampled and the meaning of the labels.

    The array has `channels` and is square, of side `image_size`: pixels, or pixels of a latent.
    `label_grid` is (rows, columns) of the grid the labels sit on, read row by row.
    """

    name: str
    channels: int
    image_size: int
    label_grid: tuple[int, int]
    class_names: tuple[str, ...]

    @property
    def n_labels(self) -> int:
        """Labels an image, one a cell of the grid."""
        return self.label_grid[0] * self.label_grid[1]

    @property
    def null_label(self) -> int:
        """The label that stands for "none"; it follows the last class."""
        return len(self.class_names)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what is sampled."""
        return (self.channels, self.image_size, self.image_size)

    @property
    def shift(self) -> float:
        """Shift of the noise schedule that the model is sampled with; 1 is uniform in time."""
        return 1.0


def quadrants(scenes: Tensor) -> Tensor:
    """The four quadrants (B, 4, C, H/2, W/2) of scenes (B, C, H, W), row by row."""
    b, c, height, width = scenes.shape
    tiles = scenes.reshape(b, c, 2, height // 2, 2, width // 2)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, 4, c, height // 2, width // 2)


def joined(tiles: Tensor) -> Tensor:
    """Scenes (B, C, H, W) from their quadrants (B, 4, C, H/2, W/2): inverse of `quadrants`."""
    b, _, c, height, width = tiles.shape
    scenes = tiles.reshape(b, 2, 2, c, height, width).permute(0, 3, 1, 4, 2, 5)
    return scenes.reshape(b, c, 2 * height, 2 * width)
