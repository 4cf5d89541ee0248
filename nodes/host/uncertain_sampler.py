"""Wraps the user's sampler: the same latent, bit for bit, plus an `Uncertainty`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...bayesdiff_core.laplace import LaplacePosterior
from ...bayesdiff_core.last_layer import check_fingerprint
from ...bayesdiff_core.methods import Method, Propagated, Tangent
from ...bayesdiff_core.recording import Recorder, Recording
from ...bayesdiff_core.signals import TrajectoryVariance
from ...bayesdiff_core.uncertainty import Signal, Uncertainty, posterior_signal
from .conditioning import align
from .contrast import contrast_map, contrast_signals, has_two_sides
from .feature_tap import Tap
from .last_layer import find_layer
from .memory import in_parts
from .solver_run import HostProcess, SamplerCall
from .validation import check_options

__all__ = ["SAMPLERS", "UncertainSampler", "UncertaintyOptions", "sampler_from"]

SAMPLERS: list[str] = comfy.samplers.KSampler.SAMPLERS


@dataclass(frozen=True)
class UncertaintyOptions:
    """What to compute besides the latent: posterior, method, contrast, memory to record in."""

    posterior: LaplacePosterior | None = None
    method: Method = field(default_factory=Tangent)
    contrast: bool = True
    budget_mb: float = 2048.0


class UncertainSampler(comfy.samplers.KSAMPLER):
    """In place of the user's sampler: the same latent, and `uncertainty` once it has run."""

    uncertainty: Uncertainty

    def __init__(self, sampler: Any, wanted: UncertaintyOptions, name: str | None = None) -> None:
        if not isinstance(sampler, comfy.samplers.KSAMPLER):
            raise ValueError(
                f"The sampler {type(sampler).__name__} does not work step by step on a model, so "
                "uncertainty cannot be carried through it. Use KSamplerSelect, for instance with "
                "euler or dpmpp_2m."
            )
        super().__init__(self._run, sampler.extra_options, sampler.inpaint_options)
        self.function = sampler.sampler_function
        self.wanted = wanted
        self.name = name or function_name(self.function)

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        samples = super().sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask,
            disable_pbar,
        )  # fmt: skip
        self.uncertainty = self._judge(model_wrap, samples, sigmas, extra_args)
        return samples

    def _run(
        self,
        model_k: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        disable: bool,
        **options: Any,
    ) -> Tensor:
        guider = model_k.inner_model
        guider.conds = align(guider.conds, len(x))
        in_parts(extra_args["model_options"], len(x))
        call = SamplerCall(
            self.function, self.name, model_k, x, sigmas, extra_args, callback, disable, options
        )
        self._process = process = HostProcess(call)
        if process.adaptive:
            process.rehearse()
        evaluations = process.trace.evaluations
        self._trajectory = TrajectoryVariance(evaluations)
        self._recorder = Recorder(evaluations, self.wanted.budget_mb)
        process.observers = [self._trajectory, self._recorder]
        self._propagated = self._propagate(process)
        return self._propagated.latent

    def _propagate(self, process: HostProcess) -> Propagated:
        posterior, call = self.wanted.posterior, process.call
        if posterior is None:
            return Propagated(process.sample(), torch.zeros_like(process.x), 0.0)
        guider = call.model_k.inner_model
        options = call.extra_args["model_options"]
        check_options(options)
        layer = find_layer(guider.inner_model, guider.conds, process.x, process.sigmas[0], options)
        check_fingerprint(posterior, layer.fingerprint(process.x.device))
        process.denoiser.tap = Tap(layer)
        # Both sets of options share the nested ones, where the wrappers go.
        process.denoiser.tap.install(options)
        return self.wanted.method.sample(process, posterior)

    def _judge(
        self, guider: Any, samples: Tensor, sigmas: Tensor, extra_args: dict[str, Any]
    ) -> Uncertainty:
        """The signals of the run that has just ended; `samples` are clean latents."""
        process, model = self._process, guider.inner_model
        # An adaptive sampler asked for a single step returns without one.
        undecided = torch.zeros_like(process.x[:, 0])
        if process.trace.evaluations:
            undecided = self._trajectory.map()
        trajectory = undecided.to("cpu", torch.float32)
        signals = {"trajectory": Signal(trajectory, "latent variance")}
        metadata = self._metadata(model)
        if self.wanted.contrast and has_two_sides(guider.conds) and process.sigmas[-1] == 0:
            seed = extra_args.get("seed") or 0
            options = process.call.extra_args["model_options"]
            found = contrast_map(model, guider.conds, samples, options, seed)
            signals |= contrast_signals(found, trajectory)
        std = None
        if self.wanted.posterior is not None:
            variance = self._propagated.variance.clamp(min=0)
            std = to_latent_units(model, sigmas[-1], variance.sqrt())
            signals["posterior"] = posterior_signal(std)
        recording = self._record()
        if self._recorder.note:
            metadata["note"] = self._recorder.note
        return Uncertainty(signals, recording, std, metadata)

    def _record(self) -> Recording | None:
        return self._recorder.finish(self._propagated.latent, self._process.sigmas)

    def _metadata(self, model: Any) -> dict[str, Any]:
        process = self._process
        posterior = self.wanted.posterior
        return {
            "sampler_name": self.name,
            "sampler_options": dict(self.extra_options),
            "inpaint_options": dict(self.inpaint_options),
            "evaluations": process.trace.evaluations,
            "sigmas": process.sigmas.tolist(),
            "method": self.wanted.method.name if posterior else None,
            "extra_evaluations": self._propagated.cost,
            "notes": {k: v for k, v in self._propagated.notes.items() if k != "members"},
            "fingerprint": posterior.fingerprint if posterior else None,
            "latent_format": type(model.latent_format).__name__,
        }


def to_latent_units(model: Any, last_sigma: Tensor, std: Tensor) -> Tensor:
    """A std (B, C, *S) in the space the sampler sees, as std of the latent that the node returns.

    Both ways out are affine and at most rearrange elements, so what they do to a std is what they
    do to a difference.
    """
    zero = torch.zeros_like(std)
    leave = model.model_sampling.inverse_noise_scaling
    std = leave(last_sigma, std) - leave(last_sigma, zero)
    return (model.process_latent_out(std) - model.process_latent_out(zero)).abs().cpu().float()


def function_name(function: Any) -> str:
    """The host's name of a sampler function, or its own."""
    name = getattr(function, "__name__", type(function).__name__)
    short = name.removeprefix("sample_").removesuffix("_function").replace("unipc", "uni_pc")
    return short if short in SAMPLERS else name


def sampler_from(metadata: dict[str, Any]) -> Any:
    """The sampler of a run, from the metadata of its uncertainty."""
    name = metadata["sampler_name"]
    if name not in SAMPLERS:
        raise ValueError(
            f"The image was sampled by '{name}', which this node cannot make again. Choose one of "
            "the samplers in the list."
        )
    sampler = comfy.samplers.sampler_object(name)
    return comfy.samplers.KSAMPLER(
        sampler.sampler_function,
        metadata.get("sampler_options") or sampler.extra_options,
        metadata.get("inpaint_options") or sampler.inpaint_options,
    )
