"""The signals under test: maps (B, H, W) of a batch of recorded scenes, high where suspect.

`Table.add` pools every map over the regions of the judge. What a signal costs is counted in guided
evaluations per step, beyond the run itself: a call of one side costs half of one where guidance
makes two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from bayesdiff_core.flow_matching import renoise
from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.last_layer import LastLayer, OutputMap
from bayesdiff_core.signals import (
    CONTRAST_LEVELS,
    Contrast,
    artifact,
    contrast,
    late_evaluations,
    smooth,
    trajectory_variance,
)

from ..baselines import guidance_difference, total_variation
from ..metrics import content, gradient_magnitude, residual
from ..models import benchmark_model
from ..recorded_runs import Scenes

__all__ = [
    "FIRST_LEVELS",
    "LEVEL_SETS",
    "Influence",
    "contrast_maps",
    "image_maps",
    "posterior_maps",
    "trajectory_maps",
    "wrong_labels",
]

Side = Callable[[Tensor, Tensor], Tensor]

RADIUS = 2
FIRST_LEVELS = (0.25, 0.40, 0.55, 0.70)
"""Levels of "contrast, first version", which weighted them by t^2 and averaged over 5x5 pixels."""

LEVEL_SETS = {
    "contrast, levels 0.7 and 0.85": (0.7, 0.85),
    "contrast, levels 0.4, 0.6 and 0.8": (0.4, 0.6, 0.8),
    "contrast, levels 0.4, 0.6, 0.7 and 0.85": (0.4, 0.6, 0.7, 0.85),
}
"""Fewer levels than the product's."""

WINDOWS = {
    "trajectory, all steps": (0.0, 1.0),
    "trajectory, first half": (0.0, 0.5),
    "trajectory, middle third": (1 / 3, 2 / 3),
    "trajectory, middle half": (0.25, 0.75),
    "trajectory, last third": (2 / 3, 1.0),
}
"""Shares of the run over which the variance of the prediction is taken."""


def image_maps(scenes: Scenes) -> dict[str, Tensor]:
    """Functions of the finished picture alone, and |cond - uncond| at the last evaluation."""
    latent, recording = scenes.latent, scenes.recording
    grey = latent.mean(1)
    z, sigma = recording.states[-1], recording.sigmas[-1]
    return {
        "total variation": total_variation(latent),
        "intensity": grey,
        "mid-grey": 1 - grey.square(),
        "|cond - uncond|": guidance_difference(scenes.denoiser, z, sigma),
    }


def trajectory_maps(scenes: Scenes) -> dict[str, Tensor]:
    """The variance of the denoised prediction over the run: the product's, and other weights."""
    denoised, sigmas = scenes.recording.denoised, scenes.recording.sigmas
    count = len(denoised)
    late = denoised[late_evaluations(count).start :]
    maps = {"trajectory": trajectory_variance(late)}
    for name, (start, end) in WINDOWS.items():
        maps[name] = trajectory_variance(denoised[round(start * count) : round(end * count)])
    maps["trajectory, weight sigma"] = weighted_variance(late, sigmas[-len(late) :])
    maps["trajectory, weight 1 - sigma"] = weighted_variance(late, 1 - sigmas[-len(late) :])
    maps["trajectory, path length"] = late.diff(dim=0).abs().sum(0).mean(1)
    maps["trajectory, smoothed"] = smooth(maps["trajectory"], RADIUS)
    return maps


def weighted_variance(values: Tensor, weights: Tensor) -> Tensor:
    """Variance (B, *S) of (E, B, C, *S) along E with weights (E,), mean over channels."""
    weights = (weights / weights.sum()).view(-1, *[1] * (values.ndim - 1))
    mean = (weights * values).sum(0)
    return (weights * (values - mean).square()).sum(0).mean(1)


def contrast_maps(scenes: Scenes, variants: bool) -> dict[str, Tensor]:
    """Artifact and contrast as the product computes them, and contrast as its first version did.

    With `variants` also the further ideas of `contrast_variants`.
    """
    layer = benchmark_model(scenes.setting.model).flow.layer if variants else None
    sides = (scenes.denoiser.conditional, scenes.denoiser.unconditional)
    asked, nothing = (Remembered(side, layer) for side in sides)
    whole = compare(scenes, asked, nothing, CONTRAST_LEVELS)
    first = [Remembered(side, None) for side in sides]
    compare(scenes, *first, FIRST_LEVELS, draw=1)
    maps = {
        "artifact": artifact(whole, trajectory_maps(scenes)["trajectory"]),
        "contrast": whole.map,
        "contrast, first version": smooth(
            total(difference(*pair) for pair in errors(scenes.latent, *first)), RADIUS
        ),
    }
    return maps | contrast_variants(scenes, asked, nothing, whole.map) if variants else maps


def contrast_variants(
    scenes: Scenes, asked: Remembered, nothing: Remembered, plain: Tensor
) -> dict[str, Tensor]:
    """Further ideas, from both sides' predictions and the plain contrast (B, H, W).

    - every level alone, fewer of them, other weights, and a second draw of noise;
    - averaged over smaller and larger windows;
    - against wrong labels in place of none;
    - the last layer's part of it (see `Influence`);
    - |D_c - D_u| at the same levels, which does not ask which side is right.
    """
    model = benchmark_model(scenes.setting.model)
    sides = (scenes.denoiser.conditional, scenes.denoiser.unconditional)
    found = errors(scenes.latent, asked, nothing)
    second = compare(scenes, *sides, CONTRAST_LEVELS, draw=9).map
    wrong = model.denoiser(wrong_labels(scenes), 1.0).conditional
    other = compare(scenes, asked.replay(), wrong, CONTRAST_LEVELS).map
    influence = Influence(model.flow.layer, model.flow.output_map, model.posterior)
    gap = total((c - u).square().mean(1) for c, u in found)
    return {
        **by_level(found),
        "contrast, two draws": plain + second,
        "contrast, wrong prompts": other,
        "contrast, none and wrong": plain + other,
        "contrast, last layer's part": total(
            influence(a.phi, c) - influence(n.phi, u)
            for a, n, (c, u) in zip(asked.calls, nothing.calls, found, strict=True)
        ),
        "|cond - uncond|, all levels": smooth(gap, 1),
        "error with the prompt alone": smooth(total(c.square().mean(1) for c, _ in found), 1),
    }


def by_level(found: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Contrast of both sides' errors with other weights, levels and windows."""
    level = {t: difference(*pair) / t for t, pair in zip(CONTRAST_LEVELS, found, strict=True)}
    maps = {}
    for name, power in (("t^2", 1.0), ("1", -1.0)):
        weighted = total(part * t**power for t, part in level.items())
        maps[f"contrast, weight {name}"] = smooth(weighted, 1)
    for name, chosen in LEVEL_SETS.items():
        maps[name] = smooth(total(level[t] for t in chosen), 1)
    maps |= {f"contrast, level {t:g} alone": smooth(part, 1) for t, part in level.items()}
    whole = total(level.values())
    return maps | {f"contrast, window radius {r}": smooth(whole, r) for r in (0, 2, 4)}


def total(maps: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(maps)).sum(0)


def errors(latent: Tensor, asked: Remembered, nothing: Remembered) -> list[tuple[Tensor, Tensor]]:
    """What both sides missed of the latent (B, C, H, W), call by call."""
    pairs = zip(asked.calls, nothing.calls, strict=True)
    return [(a.denoised - latent, n.denoised - latent) for a, n in pairs]


def difference(first: Tensor, second: Tensor) -> Tensor:
    """Squared error (B, H, W) of the first over that of the second, mean over channels."""
    return (first.square() - second.square()).mean(1)


def compare(
    scenes: Scenes, first: Side, second: Side, levels: Sequence[float], draw: int = 0
) -> Contrast:
    """The product's contrast of two sides; `draw` decides the noise."""
    generator = torch.Generator().manual_seed(10_000 * draw + scenes.setting.seed)
    at = {t: torch.tensor(t) for t in levels}
    return contrast(first, second, scenes.latent, renoise, at, generator)


def posterior_maps(scenes: Scenes) -> dict[str, Tensor]:
    """The posterior std by tangents, and two ways to take the picture's content out of it."""
    assert scenes.variance is not None, "sample these scenes with their posterior"
    std, images = scenes.variance.mean(1).sqrt(), scenes.latent
    detail = smooth(gradient_magnitude(images), RADIUS)
    floor = 0.1 * detail.mean((1, 2), keepdim=True)
    covariates = content(images).double()
    rest = residual(std.clamp(min=1e-12).log().flatten(1).double(), covariates)
    return {
        "posterior": std,
        "posterior / local detail": std / (detail + floor),
        "posterior, content regressed out": rest.view_as(std).float(),
    }


def wrong_labels(scenes: Scenes) -> Tensor:
    """Labels (B, L), each another one than was asked for, drawn at random."""
    classes = benchmark_model(scenes.setting.model).classes
    generator = torch.Generator().manual_seed(scenes.setting.seed)
    shift = torch.randint(1, classes, scenes.labels.shape, generator=generator)
    return (scenes.labels + shift) % classes


@dataclass(frozen=True)
class Call:
    denoised: Tensor
    phi: Tensor | None


@dataclass
class Remembered:
    """A side of the contrast that keeps its predictions, and with `layer` also the last layer's
    features (B, P, D)."""

    denoise: Side
    layer: LastLayer | None
    calls: list[Call] = field(default_factory=list)

    def __call__(self, z: Tensor, sigma: Tensor) -> Tensor:
        if self.layer is None:
            self.calls.append(Call(self.denoise(z, sigma), None))
        else:
            with self.layer.tap() as activations:
                denoised = self.denoise(z, sigma)
            self.calls.append(Call(denoised, self.layer.features(activations[0])))
        return self.calls[-1].denoised

    def replay(self) -> Side:
        """The same predictions again, for the same states in the same order."""
        calls = iter(self.calls)
        return lambda _z, _sigma: next(calls).denoised


@dataclass(frozen=True)
class Influence:
    """How much of a residual the last layer could take up, by its posterior: g^T Sigma g.

    g = mean over a window of r_p phi_p is the gradient of the window's squared error with respect
    to a row of the last layer. Its length in the posterior's metric is large where the residual
    lies along features that the data left open, and the part of it that no weights of this layer
    can produce drops out. Summed over rows.
    """

    layer: LastLayer
    output_map: OutputMap
    posterior: LaplacePosterior

    def __call__(self, phi: Tensor, residuals: Tensor) -> Tensor:
        """Map (B, H, W) for features (B, P, D) and residuals (B, C, H, W)."""
        height, width = residuals.shape[-2:]
        side = round(phi.shape[1] ** 0.5)
        by_row = self._by_row(residuals)
        size, stride = (5, 2) if side == height else (3, 1)
        coarse = (side + stride - 1) // stride
        total = residuals.new_zeros(len(phi), coarse**2)
        for row in by_row.unbind(-1):
            gradient = (phi * row[..., None]).transpose(1, 2).unflatten(2, (side, side))
            pooled = functional.avg_pool2d(
                gradient, size, stride, size // 2, count_include_pad=False
            )
            total += self.posterior.variance(pooled.flatten(2).transpose(1, 2))
        blocks = total.view(len(phi), 1, coarse, coarse)
        return functional.interpolate(blocks, size=(height, width), mode="nearest")[:, 0]

    def _by_row(self, residuals: Tensor) -> Tensor:
        """Residuals (B, P, R) in the layout of the last layer's outputs."""
        rows = int(self.output_map.row.max()) + 1
        found = residuals.new_zeros(len(residuals), self.output_map.positions, rows)
        found[:, self.output_map.position, self.output_map.row] = residuals * self.output_map.sign
        return found
