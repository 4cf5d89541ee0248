"""Work on a loaded model: what ComfyUI prepares for a sampler, without sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import comfy.samplers
import torch
from torch import Tensor

from .conditioning import Conds, align

__all__ = ["Session", "with_model"]

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """A loaded model with its processed conditionings and latents, as within a sampler.

    `latents` (B, C, *S) are in the space the model sees, `conds` have one row for each of them.
    `options` are private to this session, `sigma_max` () is the model's highest noise level.
    """

    model: Any
    conds: Conds
    latents: Tensor
    options: dict[str, Any]
    sigma_max: Tensor


def with_model(
    model: Any, conds: dict[str, Any], samples: Tensor, work: Callable[[Session], T], seed: int = 0
) -> T:
    """Load a model as ComfyUI does for sampling, and let `work` use it.

    Arguments:
        model: The MODEL.
        conds: CONDITIONING by the name of its side, such as "positive".
        samples: Latents as nodes exchange them, shape (B, C, *S).
        work: Called once, with everything on the model's device.
        seed: Given to the host, which hands it to what draws noise.

    Returns:
        What `work` returns. Nothing stays on the model.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds(conds)
    highest = torch.as_tensor(model.get_model_object("model_sampling").sigma_max).float()
    sampler = _Worker(work)
    sigmas = torch.stack([highest, torch.zeros_like(highest)]).cpu()
    guider.sample(torch.zeros_like(samples), samples, sampler, sigmas, seed=seed)
    return sampler.result


class _Worker(comfy.samplers.Sampler):
    """In place of a sampler: runs a function with what a sampler gets."""

    result: Any

    def __init__(self, work: Callable[[Session], Any]) -> None:
        self.work = work

    def sample(
        self,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        _callback: Any,
        _noise: Tensor,
        latent_image: Tensor,
        *_arguments: Any,
    ) -> Tensor:
        conds = align(guider.conds, len(latent_image))
        options = extra_args["model_options"]
        self.result = self.work(
            Session(guider.inner_model, conds, latent_image, options, sigmas[0])
        )
        return latent_image
