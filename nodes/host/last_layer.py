"""The last layer of a loaded model, and the way from it to the latent for every shape in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import comfy.ops
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

__all__ = ["Area", "ModelLayer", "Positions", "find_layer"]

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
        """Features phi (N, P, D) of an input of the layer, at these positions."""
        return Features.of(layer, activation, self.kept)


@dataclass
class ModelLayer:
    """The last layer of one model with the positions of every shape of latent seen so far.

    Attributes:
        layer: The layer.
        dtype: Of its input.
        features: Number D of features phi, the bias included.
        shapes: Its positions for each shape (C, *S) of latent.
    """

    layer: LastLayer
    dtype: torch.dtype
    features: int
    shapes: dict[torch.Size, Positions] = field(default_factory=dict)

    def weights(self, device: torch.device) -> Tensor:
        """The weights in effect, patches included.

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
        """Name and content of the layer; a compiled model has the same as the plain one."""
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

    Raises:
        LastLayerError: If the model has no last layer that can be followed.
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
