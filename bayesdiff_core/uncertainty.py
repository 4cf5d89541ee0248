"""The result of an uncertain run: its signals, its recording and what produced them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .ranking import pool
from .recording import Recording

__all__ = ["ARTIFACT_SOURCES", "SIGNALS", "Signal", "Uncertainty"]

SIGNALS = {
    "artifact": "where something is likely malformed: the best detector this run can offer",
    "trajectory": "how long each pixel stayed undecided during sampling",
    "contrast": "where the image shows the prompt no better than any other image would",
    "posterior": "how far each pixel would move if the model's weights were other plausible ones",
}

ARTIFACT_SOURCES = ("artifact", "contrast", "trajectory", "posterior")
"""What `artifact` may stand for, the best detector of malformed content first: itself where the
run has a trajectory and a contrast, else what there is."""


@dataclass(frozen=True)
class Signal:
    """A map (B, *S) in its own unit; HIGH is unsure or suspect, whatever the signal."""

    map: Tensor
    unit: str

    @property
    def scores(self) -> Tensor:
        """Score per image (B,): the mean of the highest tenth of the map, in the map's unit."""
        return pool(self.map.flatten(1, -2), "top10")


@dataclass
class Uncertainty:
    """Signals of a batch of B samples, plus their recorded trajectory and metadata.

    Everything lies on the CPU in float32. `latent_std` (B, C, *S) is the posterior std a latent
    channel. `metadata` says which sampler, schedule, seed and method made it.
    """

    signals: dict[str, Signal]
    recording: Recording | None = None
    latent_std: Tensor | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The signals at hand, `artifact` first."""
        own = (name for name in SIGNALS if name in self.signals and name != "artifact")
        return ["artifact", *own]

    @property
    def artifact_source(self) -> str:
        for name in ARTIFACT_SOURCES:
            if name in self.signals:
                return name
        raise ValueError("This run recorded no signal; sample again with UncertainKSampler.")

    def signal(self, name: str) -> Signal:
        """Raises ValueError, with the names at hand, when the run did not compute `name`."""
        source = self.artifact_source if name == "artifact" else name
        if source not in self.signals:
            hint = {
                "posterior": "connect a LAPLACE from LaplaceFit to UncertainKSampler",
                "contrast": "switch contrast on in UncertainKSampler (it needs a prompt)",
            }.get(name, "choose another one")
            raise ValueError(
                f"The signal '{name}' was not computed in this run: {hint}. "
                f"At hand: {', '.join(self.names)}."
            )
        return self.signals[source]

    @property
    def batch(self) -> int:
        return len(self.signal("artifact").map)

    def select(self, index: int | slice | Tensor) -> Uncertainty:
        """The uncertainty of some samples of the batch."""
        keep = slice(index, index + 1) if isinstance(index, int) else index
        return Uncertainty(
            {name: Signal(s.map[keep], s.unit) for name, s in self.signals.items()},
            self.recording.select(index) if self.recording is not None else None,
            None if self.latent_std is None else self.latent_std[keep],
            dict(self.metadata),
        )


def posterior_signal(std: Tensor, scale: Tensor | float = 1.0) -> Signal:
    """Root mean square over channels of a std (B, C, *S), `scale` turning it into latent units."""
    return Signal((std * scale).square().mean(1).sqrt().to("cpu", torch.float32), "latent std")
