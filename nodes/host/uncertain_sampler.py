"""Wraps the user's sampler: the same latent, bit for bit, plus an `Uncertainty`."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...bayesdiff_core.sample import UncertaintyOptions, sample_with_uncertainty
from ...bayesdiff_core.signals import Contrast
from ...bayesdiff_core.uncertainty import RunSettings, Uncertainty
from .conditioning import align
from .contrast import contrast_map, has_two_sides
from .feature_tap import open_last_layer
from .memory import in_parts
from .solver_run import HostSolver, SamplerCall

__all__ = ["SAMPLERS", "UncertainSampler", "sampler_from"]

SAMPLERS: list[str] = comfy.samplers.KSampler.SAMPLERS


class UncertainSampler(comfy.samplers.KSAMPLER):
    """In place of the user's sampler: the same latent, and `uncertainty` once it has run."""

    uncertainty: Uncertainty

    def __init__(self, sampler: Any, options: UncertaintyOptions, name: str | None = None) -> None:
        if not isinstance(sampler, comfy.samplers.KSAMPLER):
            raise ValueError(
                f"The sampler {type(sampler).__name__} does not work step by step on a model, so "
                "uncertainty cannot be carried through it. Use KSamplerSelect, for instance with "
                "euler or dpmpp_2m."
            )
        super().__init__(self._run, sampler.extra_options, sampler.inpaint_options)
        self.function = sampler.sampler_function
        self.options = options
        self.name = name or function_name(self.function)

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
            function=self.function,
            name=self.name,
            model_k=model_k,
            x=x,
            sigmas=sigmas,
            extra_args=extra_args,
            callback=callback,
            disable=disable,
            options=options,
        )
        solver = HostSolver(call)
        if solver.adaptive:
            solver.rehearse()
        model = guider.inner_model
        if self.options.posterior is not None:
            # Both sets of options share the nested ones, where the hooks go.
            solver.denoiser.tap = open_last_layer(
                model, guider.conds, x, sigmas[0], call.model_options, self.options.posterior
            )
        # Some samplers write into their schedule: what the host leaves by is read after the run.
        finished = has_two_sides(guider.conds) and solver.sigmas[-1] == 0

        def contrast_of(final: Tensor) -> Contrast:
            clean = model.model_sampling.inverse_noise_scaling(sigmas[-1], final)
            seed = extra_args.get("seed") or 0
            return contrast_map(model, guider.conds, clean, call.model_options, seed)

        latent, self.uncertainty = sample_with_uncertainty(
            solver.run(),
            self.options,
            contrast_of=contrast_of if finished else None,
            to_latent_units=lambda std: _latent_units(model, sigmas[-1], std),
            settings=RunSettings(
                sampler_name=self.name,
                sampler_options=dict(self.extra_options),
                inpaint_options=dict(self.inpaint_options),
                latent_format=type(model.latent_format).__name__,
            ),
        )
        return latent


def _latent_units(model: Any, last_sigma: Tensor, std: Tensor) -> Tensor:
    """A std (B, C, *S) in the space the sampler sees, as std of the latent that the node returns.

    Both ways out are affine and at most rearrange elements, so what they do to a std is what they
    do to a difference.
    """
    zero = torch.zeros_like(std)
    leave = model.model_sampling.inverse_noise_scaling
    std = leave(last_sigma, std) - leave(last_sigma, zero)
    return (model.process_latent_out(std) - model.process_latent_out(zero)).abs()


def function_name(function: Any) -> str:
    """The host's name of a sampler function, or its own."""
    name = getattr(function, "__name__", type(function).__name__)
    short = name.removeprefix("sample_").removesuffix("_function").replace("unipc", "uni_pc")
    return short if short in SAMPLERS else name


def sampler_from(settings: RunSettings) -> Any:
    """The sampler of a recorded run.

    Raises:
        ValueError: If it is none that the host can make by name.
    """
    name = settings.sampler_name
    if name not in SAMPLERS:
        raise ValueError(
            f"The image was sampled by '{name}', which this node cannot make again. Choose one of "
            "the samplers in the list."
        )
    sampler = comfy.samplers.sampler_object(name)
    return comfy.samplers.KSAMPLER(
        sampler.sampler_function,
        settings.sampler_options or sampler.extra_options,
        settings.inpaint_options or sampler.inpaint_options,
    )
