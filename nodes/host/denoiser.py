"""The host's guided model as the core's `Denoiser`.

D is what the sampler's call returns: guidance, areas, masks and inpainting are the host's own
code. Its features are those of the single conditions, weighted by the guider's derivative.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...bayesdiff_core.features import Features
from ...bayesdiff_core.last_layer import OutputMap
from ...bayesdiff_core.solver_run import Evaluation
from ...bayesdiff_core.tiling import tile
from .feature_tap import CondCall, Tap, TapRecord
from .guider import (
    GuiderState,
    guider_derivative,
    guider_state,
    preserve_state,
    recalled_state,
)

__all__ = ["HostDenoiser", "HostRecord"]

Arguments = dict[str, Any]
Weights = dict[tuple[int, int], Tensor]

UNRECORDED = RuntimeError("This evaluation was not recorded.")
"""Stands in records of runs whose evaluations are too many to keep what each had inside."""


@dataclass(frozen=True)
class HostRecord:
    """One evaluation of a run, as far as it is needed to recall it.

    Attributes:
        z: State, shape (B, C, *S).
        sigma: Its noise level, shape ().
        state: What guidance kept before it.
        tap: The calls of the model.
    """

    z: Tensor
    sigma: Tensor
    state: GuiderState
    tap: TapRecord


class HostDenoiser:
    """The model as a sampler of the host calls it, for a batch and copies of it.

    `tap` is set where the last layer of the run is open, and `progress` is told of every recalled
    evaluation.

    Arguments:
        model_k: What the sampler calls.
        arguments: Its keyword arguments.
        shape: Of the batch, (B, C, *S).
        reads_uncond: Whether the sampler also reads the unconditional prediction, as the *_cfg_pp
            samplers do.
    """

    def __init__(
        self, model_k: Any, arguments: Arguments, shape: torch.Size, reads_uncond: bool
    ) -> None:
        self.model_k = model_k
        self.arguments = arguments
        self.shape = shape
        self.reads_uncond = reads_uncond
        self.tap: Tap | None = None
        self.progress: Callable[[int], None] = lambda _count: None
        self._running: tuple[Arguments, Tensor] | None = None

    @property
    def output_map(self) -> OutputMap:
        """Where every latent element comes from in the last layer, for this shape of latent."""
        return self._tap.layer.shapes[self.shape[1:]].output_map

    def predict(self, z: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        """Predictions beside the run: nothing of the running sampler's state is touched.

        Arguments:
            z: States, shape (n * B, C, *S), tile-major.
            sigma: Their noise level, shape () or (n * B,).

        Returns:
            D and, where the sampler reads it, the unconditional one, shape (n * B, C, *S) each.
        """
        batch = self.shape[0]
        with (
            self._capture(self.arguments) as (arguments, captured),
            preserve_state(self.arguments["model_options"], batch, len(z) // batch),
        ):
            return (self._call(z, sigma, arguments), *captured)

    def denoise(self, z: Tensor, sigma: Tensor) -> Tensor:
        """The guided prediction by the call that the running sampler has just made.

        Arguments:
            z: States, shape (n * B, C, *S), tile-major.
            sigma: Their noise level, shape ().

        Returns:
            D, shape (n * B, C, *S).
        """
        if self._running is None:
            return self._call(z, sigma, self.arguments)
        arguments, vector = self._running
        return self._call(z, vector if len(vector) == len(z) else sigma, arguments)

    def evaluate(self, z: Tensor, sigma: Tensor) -> Evaluation:
        """Predictions with their features, by the running sampler's call.

        Arguments:
            z: State, shape (B, C, *S).
            sigma: Its noise level, shape ().

        Returns:
            The predictions that the sampler reads, and what the last layer made them of.

        Raises:
            RuntimeError: If the last layer of the run is not open.
        """
        with self.recall(self.record(z, sigma)[1]) as evaluation:
            return evaluation

    def record(self, z: Tensor, sigma: Tensor, whole: bool = True) -> tuple[Tensor, HostRecord]:
        """The guided prediction by the running sampler's call, and what to recall it by.

        A failure of the recording is kept for `recall`; the call itself is the sampler's own.

        Arguments:
            z: State, shape (B, C, *S).
            sigma: Its noise level, shape ().
            whole: Whether the calls of the model are kept; else `recall` makes them again.

        Returns:
            D, shape (B, C, *S), and the record, whose calls of the model wait on the CPU.

        Raises:
            RuntimeError: If the last layer of the run is not open.
        """
        recording = self._tap.recording() if whole else nullcontext(TapRecord(error=UNRECORDED))
        with self._capture(self.arguments) as (own, _), recording as record:
            arguments, vector = self._running or (own, sigma)
            state = guider_state(arguments["model_options"])
            denoised = self._call(z, vector, arguments)
        record.set_aside()
        kept = z.to(z.device if whole else "cpu", copy=True)
        return denoised, HostRecord(kept, sigma.clone(), state, record)

    @contextmanager
    def recall(self, record: HostRecord) -> Iterator[Evaluation]:
        """Within the context, guidance is as it was at a recorded evaluation.

        What the recording lacks is evaluated now.

        Arguments:
            record: From `record`.

        Yields:
            The recorded evaluation.

        Raises:
            RuntimeError: If the last layer of the run is not open.
            Exception: Whatever keeps the calls of the model from being recorded this time, too.
        """
        with recalled_state(record.state):
            yield self._evaluation(record)
        self.progress(1)

    def perturbed(self, deltas: Tensor) -> AbstractContextManager[None]:
        """Lets every copy of the batch run with last-layer weights of its own.

        Arguments:
            deltas: Changes of the weights, shape (n, R, D).

        Returns:
            Context within which copy c runs with the weights W + deltas[c].

        Raises:
            RuntimeError: If the last layer of the run is not open.
        """
        return self._tap.moved(deltas)

    @contextmanager
    def running(self, arguments: Arguments, sigma: Tensor) -> Iterator[None]:
        """Within the context, `denoise` and `record` make the very call that the sampler made.

        Arguments:
            arguments: Keyword arguments of that call.
            sigma: Noise levels as the sampler gave them, shape (N,).

        Yields:
            None.
        """
        self._running = (arguments, sigma)
        try:
            yield
        finally:
            self._running = None

    @property
    def _tap(self) -> Tap:
        if self.tap is None:
            raise RuntimeError("The last layer of this run is not open: it has no posterior.")
        return self.tap

    @contextmanager
    def _capture(self, arguments: Arguments) -> Iterator[tuple[Arguments, list[Tensor]]]:
        """Arguments that also leave the unconditional prediction in a list, if it is read."""
        captured: list[Tensor] = []
        if not self.reads_uncond:
            yield arguments, captured
            return

        def keep(args: dict[str, Any]) -> Tensor:
            captured.append(args["uncond_denoised"])
            return args["denoised"]

        options = arguments["model_options"].copy()
        options["sampler_post_cfg_function"] = [
            *options.get("sampler_post_cfg_function", ()), keep,
        ]  # fmt: skip
        options["disable_cfg1_optimization"] = True
        yield {**arguments, "model_options": options}, captured

    def _call(self, z: Tensor, sigma: Tensor, arguments: Arguments) -> Tensor:
        """D at n copies of the batch."""
        count = len(z) // self.shape[0]
        comfy.model_management.throw_exception_if_processing_interrupted()
        vector = sigma if sigma.shape == z.shape[:1] else sigma * z.new_ones(len(z))
        if count == 1:
            return self.model_k(z, vector, **arguments)
        model_k = copy.copy(self.model_k)
        model_k.noise = tile(model_k.noise, count)
        if model_k.latent_image is not None:
            model_k.latent_image = tile(model_k.latent_image, count)
        mask = arguments.get("denoise_mask")
        if mask is not None:
            arguments = {**arguments, "denoise_mask": tile(mask, count)}
        return model_k(z, vector, **arguments)

    @property
    def _model(self) -> Any:
        """The host's model behind the guider."""
        return self.model_k.inner_model.inner_model

    def _evaluation(self, record: HostRecord) -> Evaluation:
        sigma, options = record.sigma, self.arguments["model_options"]
        z = record.z.to(self.model_k.noise.device)
        tapped = record.tap
        if tapped.error is not None:
            with (
                self._capture(self.arguments) as (arguments, _),
                preserve_state(options, self.shape[0]),
                self._tap.recording() as tapped,
            ):
                self._call(z, sigma, arguments)
        calls = [call.on(z.device) for call in tapped.checked()]
        with (
            self._capture(self.arguments) as (arguments, captured),
            preserve_state(options, self.shape[0]),
            self._tap.answering([call.predictions for call in calls]),
        ):
            predictions = (self._call(z, sigma, arguments), *captured)
        weights = self._guider_weights(calls, sigma)
        return Evaluation(
            predictions,
            tuple(self._combine(weight, calls) for weight in weights),
            self._output_scale(z, sigma),
            _apart(weights[0], calls),
        )

    def _guider_weights(self, calls: list[CondCall], sigma: Tensor) -> list[Weights]:
        """For each output its derivative by every prediction that the guider was given."""
        guider = self.model_k.inner_model
        vector = sigma if sigma.ndim else sigma.expand(self.shape[0])
        weights: list[Weights] = [{} for _ in range(2 if self.reads_uncond else 1)]
        for j, call in enumerate(calls):
            for i, features in enumerate(call.features):
                if features is None:
                    continue
                with self._capture(self.arguments) as (arguments, captured):
                    changes = guider_derivative(
                        guider, self._tap, calls, (j, i), vector, arguments, captured
                    )
                for weight, change in zip(weights, changes, strict=True):
                    if change is not None:
                        weight[j, i] = self.output_map.average(change)
        return weights

    def _combine(self, weights: Weights, calls: list[CondCall]) -> Features:
        """Features of a guided output (B, P, D) from those of its conditions."""
        parts = [calls[j].features[i].weighted(weight) for (j, i), weight in weights.items()]
        if not parts:
            # No condition is active at this noise level.
            shape = (self.shape[0], self.output_map.positions, self._tap.layer.features)
            return Features.dense(calls[0].x.new_zeros(1).expand(shape))
        return reduce(add, parts)

    def _output_scale(self, z: Tensor, sigma: Tensor) -> Tensor:
        """c_out (B,): the prediction is affine in the network's output."""
        model_sampling = self._model.model_sampling
        zero = z.new_zeros(len(z), *[1] * (z.ndim - 1))
        vector = sigma.expand(len(z))
        one = model_sampling.calculate_denoised(vector, zero + 1, zero)
        return (one - model_sampling.calculate_denoised(vector, zero, zero)).flatten()


def _apart(weights: Weights, calls: list[CondCall]) -> tuple[tuple[Any, Features], ...]:
    """The conditions with their mean weight, for methods that treat them as independent."""
    return tuple((weight.mean(), calls[j].features[i]) for (j, i), weight in weights.items())
