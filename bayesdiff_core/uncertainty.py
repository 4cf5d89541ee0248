"""The result of an uncertain run: its signals, its recording and the settings that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .ranking import pool
from .recording import Recording
from .signals import Contrast, artifact

__all__ = [
    "ARTIFACT_SOURCES",
    "SIGNALS",
    "RunSettings",
    "Signal",
    "SignalKind",
    "Uncertainty",
    "contrast_signals",
    "posterior_signal",
]


@dataclass(frozen=True)
class Signal:
    """A map (B, *S) in its own unit; HIGH is unsure or suspect, whatever the signal."""

    map: Tensor
    unit: str

    @property
    def scores(self) -> Tensor:
        """Score per image (B,): the mean of the highest tenth of the map, in the map's unit."""
        return pool(self.map.flatten(1, -2), "top10")


@dataclass(frozen=True)
class SignalKind:
    """What a signal says, in one line, and the unit of its maps."""

    text: str
    unit: str

    def of(self, map_: Tensor) -> Signal:
        """A signal of this kind from its map (B, *S), on the CPU in float32."""
        return Signal(map_.detach().to("cpu", torch.float32), self.unit)


SIGNALS = {
    "artifact": SignalKind(
        "where something is likely malformed: the best detector this run can offer",
        "latent error",
    ),
    "trajectory": SignalKind(
        "how long each pixel stayed undecided during sampling", "latent variance"
    ),
    "contrast": SignalKind(
        "where the image shows the prompt no better than any other image would", "latent error"
    ),
    "posterior": SignalKind(
        "how far each pixel would move if the model's weights were other plausible ones",
        "latent std",
    ),
}

ARTIFACT_SOURCES = ("artifact", "contrast", "trajectory", "posterior")
"""What `artifact` may stand for, the best detector of malformed content first: itself where the
run has a trajectory and a contrast, else what there is."""


@dataclass(frozen=True)
class RunSettings:
    """What made an `Uncertainty`, and what a later run needs to sample in the same way.

    None, "" or nothing stand for what is not known. `sigmas` are the whole schedule, `notes` what
    the method reports, `recording_note` why there is no recording, `failures` what else could not
    be had, `resampled` the reports of later resampling.
    """

    sampler_name: str | None = None
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    inpaint_options: Mapping[str, Any] = field(default_factory=dict)
    scheduler: str | None = None
    steps: int | None = None
    denoise: float = 1.0
    cfg: float | None = None
    seed: int | None = None
    guider: str | None = None
    sigmas: tuple[float, ...] = ()
    latent_format: str | None = None
    evaluations: int = 0
    method: str | None = None
    extra_evaluations: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    recording_note: str = ""
    failures: tuple[str, ...] = ()
    resampled: tuple[str, ...] = ()


@dataclass
class Uncertainty:
    """Signals of a batch of B samples, their recorded trajectory, and the run's settings.

    Everything lies on the CPU in float32. `latent_std` (B, C, *S) is the posterior std of each
    latent channel, in latent units.
    """

    signals: dict[str, Signal]
    recording: Recording | None = None
    latent_std: Tensor | None = None
    settings: RunSettings = field(default_factory=RunSettings)

    @property
    def names(self) -> list[str]:
        """The signals there are, `artifact` first."""
        own = (name for name in SIGNALS if name in self.signals and name != "artifact")
        return ["artifact", *own]

    @property
    def artifact_source(self) -> str:
        """The signal that `artifact` stands for. Raises ValueError when there is none at all."""
        for name in ARTIFACT_SOURCES:
            if name in self.signals:
                return name
        raise ValueError("This run recorded no signal; sample again with UncertainKSampler.")

    def signal(self, name: str) -> Signal:
        """The signal `name`.

        Raises:
            ValueError: When the run did not compute it; says which there are.
        """
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
            self.settings,
        )


def posterior_signal(std: Tensor) -> Signal:
    """Root mean square over channels of a std (B, C, *S) in latent units."""
    return SIGNALS["posterior"].of(std.square().mean(1).sqrt())


def contrast_signals(contrast: Contrast, trajectory: Tensor | None) -> dict[str, Signal]:
    """The signals that a contrast gives, on the CPU.

    Arguments:
        contrast: Of B images.
        trajectory: Variance (B, *S) of the same images' predictions, where it is known.

    Returns:
        `contrast` itself, and `artifact` where there is a trajectory.
    """
    contrast = Contrast(contrast.map.cpu().float(), contrast.error.cpu().float())
    signals = {"contrast": SIGNALS["contrast"].of(contrast.map)}
    if trajectory is not None:
        signals["artifact"] = SIGNALS["artifact"].of(artifact(contrast, trajectory.cpu()))
    return signals
