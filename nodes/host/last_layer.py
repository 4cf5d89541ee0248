"""The last layer of a loaded model, and the way from it to the latent for every shape in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, WeakMethod, ref

import comfy.ops
import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ...bayesdiff_core.features import Features
from ...bayesdiff_core.last_layer import (
    LastLayer,
    LastLayerError,
    OutputMap,
    find_last_layer,
    fingerprint,
    trace_output_map,
    weights_with_bias,
)
from .conditioning import Conds, select

__all__ = ["OURS", "Area", "ModelLayer", "Positions", "check_output", "find_layer", "runs_again"]

OURS = "bayesdiff"
"""Keys of the extension's own wrappers begin with it."""

TOLERANCE = 0.05
"""How far a prediction may be from the expected one, as a part of its root mean square.

A conversion to bfloat16 moves it by less than 0.004.
"""

SPREAD, CENTER = 1.25, 0.5
"""Standard deviation and mean of the predictions that the layer is made to give in the check:
within the range of latents, so that a clamp that matters is met, and not normalised, so that a
normalisation is."""

Area = Sequence[int] | None
"""Sizes, then offsets, of the part of the latent that a conditioning covers; None for all."""


@dataclass(frozen=True)
class Positions:
    """The positions of the layer that reach the latent; others, such as text tokens, do not.

    Attributes:
        kept: Their indices among the layer's own positions, shape (P,); None is all of them.
        output_map: The way from these P positions to the latent.
    """

    kept: Tensor | None
    output_map: OutputMap

    def features(self, layer: LastLayer, activation: Tensor) -> Features:
        """Features of an input of the layer, at these positions.

        Arguments:
            layer: The layer.
            activation: Its input, as in `LastLayer.features`, for N samples.

        Returns:
            phi, shape (N, P, D).
        """
        return Features.of(layer, activation, self.kept)

    def scatter(self, layer: LastLayer, values: Tensor, like: Tensor) -> Tensor:
        """What the layer has to return so that the network answers with given values.

        Arguments:
            layer: The layer.
            values: Of the network output, shape (1, C, *S).
            like: An output of the layer for one sample.

        Returns:
            In shape and type of `like`; zero at the positions that do not reach the latent.
        """
        outputs = self.output_map.scatter(values, layer.rows)
        if self.kept is not None:
            kept = outputs
            outputs = kept.new_zeros(1, like.numel() // layer.rows, layer.rows)
            outputs[:, self.kept.to(kept.device)] = kept
        return layer.in_layout(outputs, like)


Surroundings = tuple[float, tuple[ReferenceType[Any], ...]]


@dataclass
class ModelLayer:
    """The last layer of one model with the positions of every shape of latent seen so far.

    Attributes:
        layer: The layer.
        dtype: Of its input.
        features: Number D of features phi, the bias included.
        shapes: Its positions for each shape (C, *S) of latent.
        trusted: Noise levels, and what stood between network and prediction there without
            changing it.
    """

    layer: LastLayer
    dtype: torch.dtype
    features: int
    shapes: dict[torch.Size, Positions] = field(default_factory=dict)
    trusted: list[Surroundings] = field(default_factory=list)

    def weights(self, device: torch.device) -> Tensor:
        """The weights in effect, patches included.

        Arguments:
            device: To which the host brings weights that it casts.

        Returns:
            Float32, shape (R, D), the bias as last column.
        """
        module: Any = self.layer.module
        if isinstance(module, comfy.ops.CastWeightBiasOp):
            like = torch.empty(0, dtype=self.dtype, device=device)
            weight, bias = comfy.ops.cast_bias_weight(module, like)
        else:
            weight, bias = module.weight, module.bias
        return weights_with_bias(weight, bias).float()

    def fingerprint(self, device: torch.device) -> str:
        """Name and content of the layer; a compiled model has the same as the plain one.

        Arguments:
            device: As for `weights`.

        Returns:
            See `bayesdiff_core.last_layer.fingerprint`.
        """
        return fingerprint(self.layer.name.replace("_orig_mod.", ""), self.weights(device))


_found: WeakKeyDictionary[torch.nn.Module, ModelLayer] = WeakKeyDictionary()


def find_layer(
    model: Any, conds: Conds, x: Tensor, sigma: Tensor, model_options: dict[str, Any]
) -> ModelLayer:
    """The last layer of a loaded model, with its positions for a latent and all areas in it.

    Costs up to three evaluations of one sample for a new model and none for a known one.

    Arguments:
        model: Loaded, as the host's samplers get it.
        conds: Processed conditionings.
        x: A state, shape (B, C, *S); only its first sample is used.
        sigma: Its noise level, shape ().
        model_options: Those of the run.

    Returns:
        The one found before, if the model is known, with the positions of new shapes added.

    Raises:
        LastLayerError: If there is no prompt, or no last layer that can be followed.
    """
    conds = select(conds, slice(0, 1), len(x))
    bare = _bare(conds)

    def forward(area: Area) -> Tensor:
        cond = bare if area is None else {**bare, "area": area}
        return _network_output(model, cond, x[:1], sigma, model_options)

    found = _known(model)
    if found is None:
        layer = find_last_layer(model.diffusion_model, lambda: forward(None))
        activation = _input(layer, lambda: forward(None))
        features = layer.features(activation, slice(1)).shape[-1]
        found = ModelLayer(layer, activation.dtype, features)
        _found[model] = found
    for area in _areas(conds):
        cond = bare if area is None else {**bare, "area": area}
        part = comfy.samplers.get_area_and_mult(cond, x[:1], sigma.reshape(1))
        shape = part.input_x.shape[1:]
        if shape not in found.shapes:
            found.shapes[shape] = _positions(found.layer, lambda area=area: forward(area))
    return found


def check_output(
    found: ModelLayer,
    model: Any,
    conds: Conds,
    x: Tensor,
    sigma: Tensor,
    model_options: dict[str, Any],
) -> None:
    """Refuses what changes the network's output before it becomes a prediction.

    The layer is made to return outputs whose prediction is known. Costs one call of one sample,
    two where something adds to the prediction, and none where model, wrappers and noise level
    were seen before. What draws from torch's generators finds them as before in every call.
    A layer that does not run once in a call is left to the tap, which names it.

    Arguments:
        found: From `find_layer` with the same arguments.
        model: Loaded.
        conds: Processed conditionings.
        x: A state, shape (B, C, *S); only its first sample is used.
        sigma: Its noise level, shape ().
        model_options: Those of the run, before a tap is installed.

    Raises:
        LastLayerError: If the prediction is not the one that the last layer's output makes.
    """
    surroundings = _surroundings(model, sigma, model_options)
    if surroundings is not None and surroundings in found.trusted:
        return
    probe = _Probe(found, model, _bare(select(conds, slice(0, 1), len(x))), x[:1], sigma)
    generator = torch.Generator("cpu").manual_seed(0)
    target = CENTER + SPREAD * torch.randn(probe.x.shape, generator=generator).to(probe.x)
    first = probe.predict(target, model_options)
    if first is None:
        return
    if not _close(*first):
        # What is added to every prediction cancels in the difference of two.
        second = probe.predict(-target, model_options)
        if second is None:
            return
        change, expected = (after - before for before, after in zip(first, second, strict=True))
        if not _close(change, expected):
            raise LastLayerError(
                "Between the network's output and the prediction stands something that "
                f"{_description(change, expected)}{_suspects(model_options)}, so a posterior "
                "cannot be followed into the latent. Remove the node that changes the model's "
                "output, or sample without LAPLACE."
            )
    if surroundings is not None:
        found.trusted = [s for s in found.trusted if all(r() is not None for r in s[1])]
        found.trusted.append(surroundings)


def runs_again(layer: LastLayer, count: int) -> LastLayerError:
    """The error for a layer that does not run once in a call of the model.

    Arguments:
        layer: The layer.
        count: How often it ran.

    Returns:
        To be raised.
    """
    return LastLayerError(
        f"The last layer '{layer.name}' ran {count} times in one call of the model instead of "
        "once. Remove nodes that cache or split its calls (EasyCache, LazyCache), or sample "
        "without a posterior."
    )


@dataclass(frozen=True)
class _Probe:
    """Calls of one sample in which the last layer returns what it is told to.

    Attributes:
        found: The layer.
        model: Loaded.
        cond: One conditioning for the whole latent.
        x: The state, shape (1, C, *S).
        sigma: Its noise level, shape ().
    """

    found: ModelLayer
    model: Any
    cond: dict[str, Any]
    x: Tensor
    sigma: Tensor

    def predict(
        self, target: Tensor, model_options: dict[str, Any]
    ) -> tuple[Tensor, Tensor] | None:
        """The prediction that the model gives, and the one expected of it, near the `target`.

        None where the layer does not run once in a call.
        """
        layer, positions = self.found.layer, self.found.shapes[self.x.shape[1:]]
        runs: list[Tensor] = []

        def answer(_input: Tensor, output: Tensor) -> Tensor:
            runs.append(positions.scatter(layer, self._network_output(target), output))
            return runs[-1]

        vector = self.sigma.reshape(1)
        devices = [self.x.device] if self.x.device.type == "cuda" else []
        with torch.random.fork_rng(devices), layer.override(answer):
            for _ in range(2):  # A cache may answer one call, hardly two of the same level.
                (prediction,) = comfy.samplers.calc_cond_batch(
                    self.model, [[self.cond]], self.x, vector, model_options
                )
                if runs:
                    break
        if len(runs) != 1:
            return None
        outputs = runs[0].float()
        outputs = outputs.flatten(2).transpose(1, 2) if layer.is_convolution else outputs
        outputs = outputs.reshape(1, -1, layer.rows)
        if positions.kept is not None:
            outputs = outputs[:, positions.kept.to(outputs.device)]
        return prediction.float(), self._denoised(positions.output_map.gather(outputs))

    def _network_output(self, target: Tensor) -> Tensor:
        """What the network has to return for a prediction."""
        zero = torch.zeros_like(target)
        start = self._denoised(zero)
        return (target - start) / (self._denoised(zero + 1) - start)

    def _denoised(self, network_output: Tensor) -> Tensor:
        sampling = self.model.model_sampling
        return sampling.calculate_denoised(self.sigma.reshape(1), network_output, self.x)


def _close(found: Tensor, expected: Tensor) -> bool:
    difference = (found - expected).square().mean()
    return bool(difference <= TOLERANCE**2 * expected.square().mean())


def _description(change: Tensor, expected: Tensor) -> str:
    """What a prediction goes through, as a verb and its object."""
    factor = (change * expected).sum() / expected.square().sum()
    if factor != 0 and _close(change / factor, expected):
        return f"multiplies it by {float(factor):.3g}"
    if _close(change.flatten().sort().values, expected.flatten().sort().values):
        return "moves or mirrors it"
    return "changes its values, as clamping or blurring does"


def _suspects(model_options: dict[str, Any]) -> str:
    """The names of the wrappers around the model, in brackets."""
    names = [
        getattr(function, "__qualname__", type(function).__name__)
        for function in _wrappers(model_options)
    ]
    return f" (there are: {', '.join(names)})" if names else ""


def _wrappers(model_options: dict[str, Any]) -> list[Any]:
    """What others have put between the network and its prediction."""
    function = model_options.get("model_function_wrapper")
    found = [] if function is None else [function]
    kinds = comfy.patcher_extension.WrappersMP
    wrappers = model_options.get("transformer_options", {}).get("wrappers", {})
    for kind in (kinds.CALC_COND_BATCH, kinds.APPLY_MODEL, kinds.DIFFUSION_MODEL):
        for key, functions in wrappers.get(kind, {}).items():
            if not str(key).startswith(OURS):
                found += functions
    return found


def _surroundings(model: Any, sigma: Tensor, model_options: dict[str, Any]) -> Surroundings | None:
    """What decides about the check's result, to recognise it; None where it cannot be."""
    functions = [
        comfy.samplers.calc_cond_batch, model.apply_model, model._apply_model,
        *_wrappers(model_options),
    ]  # fmt: skip
    try:
        known = tuple(WeakMethod(f) if hasattr(f, "__func__") else ref(f) for f in functions)
    except TypeError:
        return None
    return float(sigma), known


def _known(model: Any) -> ModelLayer | None:
    found = _found.get(model)
    if found is None:
        return None
    current = dict(model.diffusion_model.named_modules()).get(found.layer.name)
    return found if current is found.layer.module else None


def _bare(conds: Conds) -> dict[str, Any]:
    """A conditioning without areas, masks or ranges."""
    cond = next((cond for entries in conds.values() for cond in entries), None)
    if cond is None:
        raise LastLayerError(
            "There is no prompt at all, so the model never runs: a posterior can neither be "
            "fitted on it nor followed through it. Connect a conditioning that holds a prompt, or "
            "disconnect the LAPLACE input."
        )
    return {name: cond[name] for name in ("model_conds", "uuid", "hooks") if name in cond}


def _areas(conds: Conds) -> list[Area]:
    """The whole latent and every area among the conditionings."""
    areas = [tuple(c["area"]) for entries in conds.values() for c in entries if "area" in c]
    return [None, *dict.fromkeys(areas)]


def _network_output(
    model: Any, cond: dict[str, Any], x: Tensor, sigma: Tensor, model_options: dict[str, Any]
) -> Tensor:
    """What the network itself returns (1, C, *S), before the host turns it into a prediction."""
    outputs: list[Tensor] = []
    handle = model.diffusion_model.register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output)
    )
    try:
        comfy.samplers.calc_cond_batch(model, [[cond]], x, sigma.reshape(1), model_options)
    finally:
        handle.remove()
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
        raise LastLayerError(
            "The network did not answer one call with one tensor, so the posterior cannot be "
            "followed into the latent. Remove nodes that cache or split the model's calls."
        )
    return outputs[0]


def _input(layer: LastLayer, forward: Callable[[], Tensor]) -> Tensor:
    with layer.tap() as activations:
        forward()
    return activations[0]


def _positions(layer: LastLayer, forward: Callable[[], Tensor]) -> Positions:
    traced = trace_output_map(layer, forward)
    kept, index = traced.position.unique(return_inverse=True)
    if len(kept) == traced.positions:
        return Positions(None, traced)
    return Positions(kept, OutputMap(index, traced.row, traced.sign, len(kept)))
