"""A sampler of the host on one batch, as the core's `SolverProcess`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import torch
from torch import Tensor

from ...bayesdiff_core.process import EvaluateStep, SolverProcess
from ...bayesdiff_core.trace import DrawNoise, Evaluate, Trace, trace_solver
from .denoiser import HostDenoiser
from .noise import Draw, redirected

__all__ = ["HostProcess", "SamplerCall"]

POST_CFG = "sampler_post_cfg_function"


@dataclass(frozen=True)
class SamplerCall:
    """The arguments with which the host calls a sampler function.

    The state x may hold several `copies` of the batch, tile-major.
    """

    function: Callable[..., Tensor]
    name: str
    model_k: Any
    x: Tensor
    sigmas: Tensor
    extra_args: dict[str, Any]
    callback: Callable[[dict[str, Any]], None] | None
    disable: bool | None
    options: dict[str, Any]
    copies: int = 1

    @property
    def shape(self) -> torch.Size:
        """Of the batch that the conditionings belong to; x holds `copies` of it."""
        return torch.Size([len(self.x) // self.copies, *self.x.shape[1:]])

    def own_args(self) -> dict[str, Any]:
        """Arguments that the sampler may change without an effect on anyone else."""
        return {**self.extra_args, "model_options": self.extra_args["model_options"].copy()}

    @property
    def guidance_functions(self) -> int:
        """How many functions look at the guided prediction before the sampler adds its own."""
        return len(self.extra_args["model_options"].get(POST_CFG, ()))


class HostProcess(SolverProcess):
    """The run that the host asked for; the sampler sees what it would see without us."""

    denoiser: HostDenoiser

    def __init__(self, call: SamplerCall) -> None:
        # Some samplers write into the schedule they are given.
        sigmas = call.sigmas.clone()
        reads_uncond = _reads_unconditional(call, sigmas)
        denoiser = HostDenoiser(call.model_k, call.own_args(), call.shape, reads_uncond)
        super().__init__(
            call.function,
            denoiser,
            call.x,
            sigmas,
            name=call.name,
            outputs=2 if reads_uncond else 1,
            mask=_free(call.extra_args),
            options=call.options,
            callback=call.callback,
        )
        self.call = call

    @cached_property
    def trace(self) -> Trace:
        def run(x: Tensor, evaluate: Evaluate, draw: DrawNoise) -> Tensor:
            model = _TracedModel(self.call, evaluate)
            return _run(self.call, model, x, self.sigmas.cpu(), lambda _own: draw())

        return trace_solver(run, self.outputs, name=self.name)

    def denoise(self, _k: int, z: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser.denoise(z, sigma)

    def _solve_main(self, evaluate: EvaluateStep) -> Tensor:
        def record(own: Callable[[], Tensor]) -> Tensor:
            self.draws.append(own())
            return self.draws[-1]

        call = self.call
        with redirected(record, call.options) as options:
            return call.function(
                _RunningModel(call.model_k, self.denoiser, evaluate),
                call.x,
                call.sigmas,
                extra_args=call.extra_args,
                callback=call.callback,
                disable=call.disable,
                **options,
            )

    def _solve(
        self,
        evaluate: EvaluateStep,
        x: Tensor,
        sigmas: Tensor,
        draw: DrawNoise,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> Tensor:
        model = _RunningModel(self.call.model_k, self.denoiser, evaluate)
        return _run(self.call, model, x, sigmas, lambda _own: draw())


def _run(call: SamplerCall, model: Any, x: Tensor, sigmas: Tensor, draw: Draw) -> Tensor:
    """The sampler on a model of ours, with nothing shared with the run that the host asked for."""
    with redirected(draw, call.options) as options:
        return call.function(
            model,
            x,
            sigmas.clone(),
            extra_args=call.own_args(),
            callback=None,
            disable=True,
            **options,
        )


class _Model:
    """Stands in for the model that a sampler calls; whatever else it asks for is the model's."""

    def __init__(self, model_k: Any) -> None:
        self._model_k = model_k

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model_k, name)


class _RunningModel(_Model):
    """Evaluates step by step, each as the sampler's own call."""

    def __init__(self, model_k: Any, denoiser: HostDenoiser, evaluate: EvaluateStep) -> None:
        super().__init__(model_k)
        self._denoiser = denoiser
        self._evaluate = evaluate
        self._counter: Iterator[int] = count()

    def __call__(self, x: Tensor, sigma: Tensor, **arguments: Any) -> Tensor:
        with self._denoiser.running(arguments, sigma):
            return self._evaluate(next(self._counter), x, sigma.flatten()[0])


class _TracedModel(_Model):
    """Answers with what `evaluate` says, the unconditional prediction by the sampler's own way."""

    def __init__(self, call: SamplerCall, evaluate: Evaluate) -> None:
        super().__init__(call.model_k)
        self._known = call.guidance_functions
        self._evaluate = evaluate
        self.reads_uncond = False

    def __call__(
        self, x: Tensor, sigma: Tensor, model_options: dict[str, Any], **_arguments: Any
    ) -> Tensor:
        outputs: Sequence[Tensor] = self._evaluate(x, sigma)
        denoised = outputs[0]
        for function in model_options.get(POST_CFG, ())[self._known :]:
            self.reads_uncond = True
            denoised = function(
                {
                    "denoised": denoised,
                    "cond_denoised": denoised,
                    "uncond_denoised": outputs[-1],
                    "input": x,
                    "sigma": sigma,
                    "model_options": model_options,
                    "cond_scale": 1.0,
                    "model": self._model_k.inner_model.inner_model,
                }
            )
        return denoised


def _reads_unconditional(call: SamplerCall, sigmas: Tensor) -> bool:
    """Whether the sampler adds a function of its own that looks at the guided prediction."""
    model = _TracedModel(call, lambda z, _sigma: (torch.zeros_like(z),))
    x = torch.zeros(1, 1, *[1] * (call.x.ndim - 2))
    _run(call, model, x, sigmas.cpu(), lambda _own: torch.zeros_like(x))
    return model.reads_uncond


def _free(extra_args: dict[str, Any]) -> Tensor | None:
    """Where the latent is free to move."""
    mask = extra_args.get("denoise_mask")
    if mask is not None and "denoise_mask_function" in extra_args["model_options"]:
        return (mask > 0).to(mask)
    return mask
