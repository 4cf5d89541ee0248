"""What every bundled model draws: pictures that show one label in every cell of a grid."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Scene"]


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
