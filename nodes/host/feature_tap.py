"""Hooks on the last layer for one run: record features, perturb weights, replace predictions.

Features are combined exactly as `calc_cond_batch` combines predictions: that of condition i is the
mean of its parts, out_i = sum_j mult_j out_ij / sum_j mult_j, each part with a strength, a mask
and an area of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ...bayesdiff_core.features import Features
from ...bayesdiff_core.laplace import LaplacePosterior
from ...bayesdiff_core.last_layer import LastLayerError, check_fingerprint
from .conditioning import Conds
from .last_layer import OURS, ModelLayer, check_output, find_layer, runs_again
from .memory import COPIES, is_out_of_memory
from .validation import check_options

__all__ = ["CondCall", "Tap", "TapRecord", "open_last_layer"]

WRAPPERS = comfy.patcher_extension.WrappersMP


@dataclass
class CondCall:
    """One call of `calc_cond_batch`: its input, its predictions and the features behind them.

    Attributes:
        x: The states, shape (B, C, *S).
        predictions: The denoised D (B, C, *S) of each condition.
        features: The features phi (B, P, D) behind each; None where the condition is absent.
    """

    x: Tensor
    predictions: list[Tensor]
    features: list[Features | None]

    def on(self, device: torch.device | str) -> CondCall:
        """The same on a device.

        Arguments:
            device: Where the tensors of the result lie.

        Returns:
            A call that shares the tensors which lie there already.
        """
        features = [phi if phi is None else phi.to(device) for phi in self.features]
        predictions = [prediction.to(device) for prediction in self.predictions]
        return CondCall(self.x.to(device), predictions, features)


@dataclass
class TapRecord:
    """The calls of one evaluation.

    Attributes:
        calls: In the order in which they were made.
        error: For which they could not all be recorded, where that is so.
    """

    calls: list[CondCall] = field(default_factory=list)
    error: Exception | None = None

    def set_aside(self) -> None:
        """Move the calls out of the device's memory, where they wait for the end of the run."""
        try:
            self.calls = [call.on("cpu") for call in self.calls]
        except Exception as error:
            self.calls, self.error = [], error

    def checked(self) -> list[CondCall]:
        """The calls, if all of them were recorded.

        Returns:
            In the order in which they were made.

        Raises:
            Exception: The `error`, where there is one.
        """
        if self.error is not None:
            raise self.error
        return self.calls


class Tap:
    """Records features, perturbs weights, or answers in place of the model, within its contexts.

    Outside of them it changes nothing. `install` puts its wrappers into the options of a run.

    Arguments:
        layer: The last layer, with its positions for the latents of the run.
    """

    def __init__(self, layer: ModelLayer) -> None:
        self.layer = layer
        self._record: TapRecord | None = None
        self._mean: _MeanFeatures | None = None
        self._deltas: Tensor | None = None
        self._rows = 0
        self._replies: Iterator[list[Tensor]] | None = None

    def install(self, model_options: dict[str, Any]) -> None:
        """Adds the tap's wrappers to the options of a run.

        Arguments:
            model_options: Private options of the run, changed in place.
        """
        wrappers = {
            WRAPPERS.CALC_COND_BATCH: self._calc_cond_batch,
            WRAPPERS.APPLY_MODEL: self._apply_model,
        }
        for kind, wrapper in wrappers.items():
            comfy.patcher_extension.add_wrapper_with_key(
                kind, OURS, wrapper, model_options, is_model_options=True
            )

    @contextmanager
    def recording(self) -> Iterator[TapRecord]:
        """Within the context, records every call of `calc_cond_batch` with its features.

        What fails in the recording never disturbs the calls themselves.

        Yields:
            The record, which grows with every call.
        """
        self._record = TapRecord()
        try:
            yield self._record
        finally:
            self._record = self._mean = None

    @contextmanager
    def moved(self, deltas: Tensor) -> Iterator[None]:
        """Within the context, copy c of a tile-major batch runs with weights W + deltas[c].

        Arguments:
            deltas: Changes of the weights, the bias as last column, shape (n, R, D).

        Yields:
            None.
        """
        self._deltas = deltas
        try:
            yield
        finally:
            self._deltas = None

    @contextmanager
    def answering(self, replies: list[list[Tensor]]) -> Iterator[None]:
        """Within the context, `calc_cond_batch` returns given predictions without the model.

        Arguments:
            replies: For each call the predictions (B, C, *S) of its conditions.

        Yields:
            None.
        """
        self._replies = iter(replies)
        try:
            yield
        finally:
            self._replies = None

    def _calc_cond_batch(
        self,
        executor: Callable[..., list[Tensor]],
        model: Any,
        conds: list[Any],
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        if self._replies is not None:
            return next(self._replies)
        self._rows = len(x)
        if self._record is not None:
            with self._looking_on():
                parts = _parts(model, conds, x, timestep, model_options)
                self._mean = _MeanFeatures(self.layer, x, parts, len(conds))
        predictions = executor(model, conds, x, timestep, model_options)
        if self._mean is not None:
            with self._looking_on():
                # The guider may go on to change them in place.
                kept = [prediction.clone() for prediction in predictions]
                self._record.calls.append(CondCall(x.clone(), kept, self._mean.features()))
        self._mean = None
        return predictions

    @contextmanager
    def _looking_on(self) -> Iterator[None]:
        """Work on the record, whose failure ends it and nothing else."""
        try:
            yield
        except Exception as error:
            self._record.error, self._mean = error, None

    def _apply_model(
        self,
        executor: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        transformer_options = transformer_options or {}
        with ExitStack() as stack:
            if self._deltas is not None:
                chunks = len(transformer_options["cond_or_uncond"])
                _check_rows(len(x), chunks, self._rows)
                deltas = self._deltas[transformer_options.get(COPIES, slice(None))]
                stack.enter_context(self.layer.layer.perturbed(deltas, chunks))
            activations = None
            if self._mean is not None:
                activations = stack.enter_context(self.layer.layer.tap())
            output = executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        if activations is not None and self._mean is not None:
            with self._looking_on():
                sides = len(transformer_options["cond_or_uncond"])
                _check_rows(len(x), sides, self._rows)
                self._mean.add(activations, transformer_options)
        return output


def open_last_layer(
    model: Any,
    conds: Conds,
    x: Tensor,
    sigma: Tensor,
    model_options: dict[str, Any],
    posterior: LaplacePosterior | None = None,
) -> Tap:
    """Find the last layer of a loaded model and install a tap on it for one run.

    Arguments:
        model: Loaded, as the host's samplers get it.
        conds: Processed conditionings, aligned to the batch.
        x: Latents of the run, shape (B, C, *S).
        sigma: A noise level at which the model may be called, shape ().
        model_options: Private options of the run, where the hooks go.
        posterior: Checked against the layer where it is given.

    Returns:
        The tap, installed; it ends with the options.

    Raises:
        ValueError: If the options cannot be followed, the model has no last layer to follow,
            something changes what the network returns, or the posterior belongs to another layer.
        RuntimeError: If the model fails on one latent at a time, for other reasons than memory.
    """
    check_options(model_options)
    try:
        layer = find_layer(model, conds, x, sigma, model_options)
    except (LastLayerError, comfy.model_management.InterruptProcessingException):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise RuntimeError(
            f"The last layer is looked for with one latent at a time, and the model fails on that "
            f"({error})."
        ) from error
    if posterior is not None:
        check_fingerprint(posterior, layer.fingerprint(x.device))
    check_output(layer, model, conds, x, sigma, model_options)
    tap = Tap(layer)
    tap.install(model_options)
    return tap


def _check_rows(rows: int, sides: int, batch: int) -> None:
    """Refuses a call of the model that holds a part of the batch.

    Arguments:
        rows: Of the call.
        sides: Conditionings that share it.
        batch: States that the sampler asked about, with copies.

    Raises:
        LastLayerError: If not every side has the whole batch.
    """
    if rows != sides * batch:
        raise LastLayerError(
            f"The model was called with {rows} latents in place of {sides * batch}: a node splits "
            "the batch, so it cannot be told which latent the last layer saw. Remove that node, "
            "or sample without a posterior."
        )


@dataclass
class _Part:
    """How one conditioning enters the prediction of its condition."""

    mult: Tensor
    area: Any
    alone: bool


PartKey = tuple[int, Any]


def _parts(
    model: Any, conds: list[Any], x: Tensor, timestep: Tensor, model_options: dict[str, Any]
) -> dict[PartKey, _Part]:
    """Every active conditioning by (condition, uuid): the uuid alone is not unique."""
    entries: list[tuple[Any, int]] = []
    defaults: list[list[dict[str, Any]]] = []
    for i, side in enumerate(conds):
        defaults.append([cond for cond in side or () if "default" in cond])
        for cond in side or ():
            if "default" in cond:
                continue
            part = comfy.samplers.get_area_and_mult(cond, x, timestep)
            if part is not None:
                entries.append((part, i))
    if any(defaults):
        by_hooks: dict[Any, list[tuple[Any, int]]] = {None: entries}
        comfy.samplers.finalize_default_conds(
            model, by_hooks, defaults, x, timestep, model_options
        )
        entries = [entry for group in by_hooks.values() for entry in group]
    counts = [sum(i == side for _, side in entries) for i in range(len(conds))]
    whole = {cond["uuid"] for side in conds for cond in side or () if "mask" not in cond}
    return {
        (i, part.uuid): _Part(
            part.mult, part.area, counts[i] == 1 and part.area is None and part.uuid in whole
        )
        for part, i in entries
    }


@dataclass
class _MeanFeatures:
    """Features of each condition as the weighted mean over its parts."""

    layer: ModelLayer
    x: Tensor
    parts: dict[PartKey, _Part]
    conditions: int
    _sums: dict[int, Features] = field(default_factory=dict)
    _weights: dict[int, Tensor] = field(default_factory=dict)
    _seen: set[PartKey] = field(default_factory=set)

    def add(self, activations: list[Tensor], transformer_options: dict[str, Any]) -> None:
        """The features of one call of the model, which may carry several parts."""
        sides = transformer_options["cond_or_uncond"]
        if len(activations) != 1:
            raise runs_again(self.layer.layer, len(activations))
        # A compiled model may use the memory of its activations again in its next call.
        chunks = activations[0].clone().chunk(len(sides))
        for side, uuid, chunk in zip(sides, transformer_options["uuids"], chunks, strict=True):
            if (side, uuid) in self._seen:
                raise runs_again(self.layer.layer, 2)
            self._seen.add((side, uuid))
            self._add_part(side, self.parts[side, uuid], chunk)

    def features(self) -> list[Features | None]:
        return [self._mean(i) for i in range(self.conditions)]

    def _mean(self, side: int) -> Features | None:
        if side not in self._sums:
            return None
        total = self._sums[side]
        if side not in self._weights:
            return total
        return total.weighted(1 / (self._weights[side] + 1e-37))

    def _add_part(self, side: int, part: _Part, activation: Tensor) -> None:
        full = self.layer.shapes[self.x.shape[1:]]
        if part.alone:
            self._sums[side] = full.features(self.layer.layer, activation)
            return
        positions = self.layer.shapes[part.mult.shape[1:]]
        features = positions.features(self.layer.layer, activation)
        mult = part.mult
        if part.area is not None:
            embedded = torch.zeros_like(self.x)
            _narrow(embedded, part.area).add_(part.mult)
            mult = embedded
            owner = _narrow(full.output_map.position[None], part.area)[0].flatten()
            index = torch.zeros(full.output_map.positions, dtype=torch.long)
            index[owner] = positions.output_map.position.flatten()
            features = features.at(index)
        weight = full.output_map.average(mult)
        features = features.weighted(weight)
        self._sums[side] = self._sums[side] + features if side in self._sums else features
        self._weights[side] = self._weights.get(side, 0) + weight


def _narrow(tensor: Tensor, area: Any) -> Tensor:
    """The part of a tensor (N, C, *S) that an area covers."""
    dims = len(area) // 2
    for i in range(dims):
        tensor = tensor.narrow(i + 2, area[i + dims], area[i])
    return tensor
