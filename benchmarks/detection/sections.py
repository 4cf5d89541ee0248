"""Sections of the detection benchmark: model, guidance scale, seeds and number of scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..models import Setting
from ..recorded_runs import CHUNK, Scenes, chunks, sample_scenes

__all__ = ["CONSISTENCY", "COSTLY", "COSTLY_SCENES", "QUICK", "SECTIONS", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What a section measures; `variants` and `posterior` on the first so many of its scenes."""

    model: str
    guidance_scale: float
    first_seed: int
    scenes: int
    variants: int = 0
    posterior: int = 0
    filtering: bool = False

    def settings(self, count: int | None = None) -> Iterator[Setting]:
        """Of all scenes, or of the first `count`."""
        count = self.scenes if count is None else min(count, self.scenes)
        return chunks(self.model, self.guidance_scale, count, self.first_seed)

    def sampled(self, count: int) -> Iterator[Scenes]:
        """The first `count` scenes, from the cache where the section was measured before."""
        for done, setting in enumerate(self.settings()):
            left = count - done * CHUNK
            if left <= 0:
                return
            scenes = sample_scenes(setting, done * CHUNK < self.posterior)
            yield scenes if left >= setting.count else scenes.first(left)


SECTIONS = {
    "choice": Plan("digits", 1.0, 4000, 320, variants=320, posterior=320),
    "digits": Plan("digits", 1.0, 5000, 1024, variants=256, posterior=1024, filtering=True),
    "digits-cfg1.5": Plan("digits", 1.5, 6000, 1024, posterior=128),
    "emoji": Plan("emoji", 3.0, 7000, 320, variants=64, posterior=128),
    "letters": Plan("letters", 1.0, 8000, 1024, variants=256, posterior=1024, filtering=True),
}
QUICK = Plan("digits", 1.0, 5000, 128, posterior=128)
COSTLY = {
    "costly": Plan("digits", 1.0, 5000, 256),
    "costly-letters": Plan("letters", 1.0, 8000, 256),
}
COSTLY_SCENES = {"ensemble M=5": 64, "bayesdiff S=10": 64, "bayesdiff, skip 5": 128}
"""Scenes of the costly methods, run on the first ones of the model's own section."""
CONSISTENCY = Plan("digits", 1.0, 9000, 32)
