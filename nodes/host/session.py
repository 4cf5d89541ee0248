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
    """A loaded model with what a sampler would get.

    Attributes:
        model: Loaded, as the host's samplers get it.
        conds: Processed conditionings, one row for each latent.
        latents: In the space the model sees, shape (B, C, *S).
        options: Private to this session.
        sigma_max: The model's highest noise level, shape ().
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
