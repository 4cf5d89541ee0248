"""Oracles: classifiers that judge what a bundled model drew, for benchmarks and tests only.

They see real images alone, so their verdict on a generated image is independent of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from .bundle import load_weights
from .scene import quadrants

__all__ = ["ACCEPTED", "Oracle", "accepted_quadrants", "label_probability", "load_oracle"]

ACCEPTED = 0.5
"""A picture shows its label where that is more probable than this; it is then the likeliest."""


class Oracle(nn.Module):
    """Convolutional classifier whose pooled features also serve distances between images.

    With one channel it sees grey levels, the mean over an image's channels; images are averaged
    down by `shrink` first.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        class_names: tuple[str, ...],
        shrink: int = 1,
    ) -> None:
        super().__init__()
        self.channels, self.widths, self.class_names = channels, widths, class_names
        self.shrink = shrink
        layers: list[nn.Module] = []
        current = channels
        for level, width in enumerate(widths):
            layers += [] if level == 0 else [nn.MaxPool2d(2)]
            for _ in range(2):
                layers += [
                    nn.Conv2d(current, width, 3, padding=1),
                    nn.GroupNorm(8, width),
                    nn.SiLU(),
                ]
                current = width
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(current, len(class_names))

    def features(self, x: Tensor) -> Tensor:
        """Spatial mean of the last feature map, (B, widths[-1]), of images (B, C, H, W)."""
        if self.channels == 1:
            x = x.mean(dim=1, keepdim=True)
        if self.shrink > 1:
            x = avg_pool2d(x, self.shrink)
        return self.body(x).mean(dim=(-2, -1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, n_classes) of images (B, C, H, W) in [-1, 1]."""
        return self.head(self.dropout(self.features(x)))

    @property
    def config(self) -> dict:
        """Arguments that build this oracle."""
        return {
            "channels": self.channels,
            "widths": self.widths,
            "class_names": self.class_names,
            "shrink": self.shrink,
        }


def load_oracle(name: str, device: torch.device | str = "cpu") -> Oracle:
    """The oracle of the bundled model ``name`` ("digits", "emoji", "letters"), in eval mode.

    Raises:
        FileNotFoundError: If its weights are missing.
    """
    weights, config = load_weights(f"oracle_{name}")
    oracle = Oracle(**config)
    oracle.load_state_dict(weights)
    return oracle.to(device).eval().requires_grad_(False)


def label_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability that pictures show their labels, by an oracle.

    Arguments:
        logits: Of N pictures, shape (N, n_classes).
        labels: Theirs, N in any shape.

    Returns:
        In [0, 1], shape of the labels.
    """
    probability = logits.softmax(-1).unflatten(0, labels.shape)
    return probability.gather(-1, labels[..., None])[..., 0]


@torch.no_grad()
def accepted_quadrants(oracle: Oracle, scenes: Tensor, labels: Tensor) -> Tensor:
    """Which quadrants (B, 4) of pictures (B, C, H, W) show their labels (B, 4)."""
    tiles = quadrants(scenes.clamp(-1, 1))
    return label_probability(oracle(tiles.flatten(0, 1)), labels) > ACCEPTED
