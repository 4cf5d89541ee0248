"""Agreement of an image with its prompt, by a CLIP model that the host's own loaders take.

A weak truth: CLIP sees whether the right things are there, hardly whether a hand has five fingers.
It is also close to what `contrast` asks, and may flatter it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..detection.filtering import DROPPED
from . import CheckpointError
from .runs import Image, Runs
from .truth import Verdict

__all__ = ["agreement", "clip_truth", "load_clip"]


def clip_truth(path: Path, runs: Runs, images: Sequence[Image]) -> dict[str, Verdict]:
    """The 17% of the images that agree least with their prompts are called malformed.

    Raises:
        CheckpointError: The prompt of an image is not known.
    """
    if not all(image.prompt for image in images):
        raise CheckpointError(
            "The prompt is not known: no typed text leads to the sampler of this workflow. Name "
            "prompts with --prompts, or judge by labels."
        )
    vision, text = load_clip(path)
    values = torch.tensor(
        [agreement(vision, text, runs.picture(i)[None], i.prompt).item() for i in images]
    )
    lowest = set(values.argsort(stable=True)[: round(DROPPED * len(values))].tolist())
    return {image.file: Verdict(i in lowest) for i, image in enumerate(images)}


@torch.inference_mode()
def agreement(vision: Any, text: Any, images: Tensor, prompt: str) -> Tensor:
    """Cosine (B,) between images (B, H, W, 3) and a prompt in CLIP's common space.

    `vision` and `text` are the host's CLIP_VISION and CLIP. The first 75 tokens of the prompt
    count, without weights (Radford et al. 2021).
    """
    seen = vision.encode_image(images)["image_embeds"].float().cpu()
    said = text_embedding(text, prompt)
    return torch.cosine_similarity(seen, said[None], dim=-1)


def text_embedding(text: Any, prompt: str) -> Tensor:
    """The projected embedding (F,) of a prompt; the host's own pooled one may be unprojected."""
    text.load_model()
    model = text.cond_stage_model
    encoder = getattr(model, model.clip)
    tokens = text.tokenize(prompt)[model.clip_name][0]
    model.reset_clip_options()
    model.set_clip_options(
        {"projected_pooled": True, "execution_device": text.patcher.load_device}
    )
    try:
        _states, pooled = encoder([[token for token, _weight in tokens]])
    finally:
        model.reset_clip_options()
    return pooled[0].float().cpu()


def load_clip(path: Path) -> tuple[Any, Any]:
    """CLIP_VISION and CLIP of one file with both halves of a CLIP model, as transformers saves it.

    Raises:
        CheckpointError: The file is missing, or lacks a half or a projection.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}; --clip names a whole CLIP model.")
    names = set(importlib.import_module("comfy.utils").load_torch_file(str(path)))
    needed = {
        "visual_projection.weight": "the image encoder's projection",
        "text_projection.weight": "the text encoder's projection",
        "vision_model.embeddings.patch_embedding.weight": "the image encoder",
        "text_model.embeddings.token_embedding.weight": "the text encoder",
    }
    missing = [what for name, what in needed.items() if name not in names]
    if missing:
        raise CheckpointError(
            f"{path} lacks {', '.join(missing)}. Take a whole CLIP model in one file, such as "
            "model.safetensors of openai/clip-vit-large-patch14."
        )
    vision = importlib.import_module("comfy.clip_vision").load(str(path))
    sd = importlib.import_module("comfy.sd")
    text = sd.load_clip([str(path)], clip_type=sd.CLIPType.STABLE_DIFFUSION)
    if vision is None:
        raise CheckpointError(
            f"ComfyUI does not know the image encoder of {path}; it knows ViT-L, H and bigG."
        )
    return vision, text
