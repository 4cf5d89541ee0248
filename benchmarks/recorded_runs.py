"""Recorded runs of the bundled models, computed once: what detection and repair start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from bayesdiff_core.flow_matching import FlowDenoiser
from bayesdiff_core.methods import PRESETS
from bayesdiff_core.recording import Recorder, Recording

from .cache import cached
from .models import Setting, benchmark_model

__all__ = ["CHUNK", "STEPS", "Scenes", "chunks", "sample_scenes"]

STEPS = 30
CHUNK = 64


@dataclass(frozen=True)
class Scenes:
    """A batch: its recorded run, its labels (B, L), and the posterior variance where asked for."""

    setting: Setting
    recording: Recording
    labels: Tensor
    variance: Tensor | None = None

    @property
    def latent(self) -> Tensor:
        return self.recording.final

    def first(self, count: int) -> Scenes:
        """The first `count` of them."""
        return Scenes(
            replace(self.setting, count=count),
            self.recording.select(slice(count)),
            self.labels[:count],
            None if self.variance is None else self.variance[:count],
        )

    @property
    def denoiser(self) -> FlowDenoiser:
        model = benchmark_model(self.setting.model)
        return model.denoiser(self.labels, self.setting.guidance_scale)


def chunks(model: str, guidance_scale: float, count: int, first_seed: int) -> Iterator[Setting]:
    """Settings of `count` scenes, at most CHUNK each; seeds count up from `first_seed`."""
    for i, start in enumerate(range(0, count, CHUNK)):
        size = min(CHUNK, count - start)
        yield Setting(model, "ddim", STEPS, guidance_scale, size, first_seed + i)


def sample_scenes(setting: Setting, posterior: bool = False) -> Scenes:
    """The recorded run of a setting, with the posterior by the preset `balanced` if asked for.

    Observing does not change a run: with and without the posterior the scenes are the same.
    """
    model = benchmark_model(setting.model)

    def compute() -> dict[str, Tensor]:
        recorder = Recorder(setting.steps)
        process = setting.process((recorder,))
        if posterior:
            result = PRESETS["balanced"].sample(process, model.posterior)
            final, variance = result.latent, result.variance
        else:
            final, variance = process.sample(), None
        recording = recorder.finish(final, process.sigmas)
        assert recording is not None, recorder.note
        found = dict(vars(recording))
        return found if variance is None else {**found, "variance": variance}

    # The number after "posterior" counts the changes of the preset's method.
    carried = "posterior 3" if posterior else "posterior False"
    key = f"scenes 1 {setting!r} {carried} {model.posterior.fingerprint}"
    tensors = cached(key, compute)
    variance = tensors.pop("variance", None)
    labels = model.labels(setting.count, setting.seed)
    return Scenes(setting, Recording(**tensors), labels, variance)
