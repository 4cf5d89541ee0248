"""The node MaskedResample with inputs that suit the scene."""

import torch


def left_half(soft=False):
    mask = torch.zeros(1, 32, 32)
    mask[:, :, :16] = 1
    if soft:
        mask[:, :, 12:16] = 0.5
    return mask


def resample(scene, samples, uncertainty, **changes):
    inputs = {
        "model": scene.model,
        "latent": {"samples": samples},
        "uncertainty": uncertainty,
        "mask": left_half(),
        "positive": scene.positive,
        "negative": scene.negative,
        "seed": 1,
        "denoise": 0.7,
        "candidates": 2,
        "rule": "random",
        "keep_original": True,
        "cfg": 0.0,
        **changes,
    }
    latent, uncertainty, report = scene.host.call("MaskedResample", **inputs).outputs
    return latent["samples"], uncertainty, report
