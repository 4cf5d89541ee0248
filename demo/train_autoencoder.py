"""Train the autoencoder of `letters`: ``python -m demo.train_autoencoder``.

Runs on the CPU in bfloat16 with float32 master weights, from seed, in one go; figures are appended
to ``.cache/train/letters_vae.jsonl``.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from torch import Tensor, nn

from .autoencoder import Autoencoder, pad
from .bundle import save_weights
from .data import crop
from .letters import HELD_OUT_FONTS, letter_batches
from .train import FOLDER, SEED, descend, record, update_average

__all__ = ["peak_ratio"]

NAME = "letters_vae"
WIDTH = 32
STEPS = 2400
BATCH = 16
LEARNING_RATE = 1.5e-3
CROP = 48
LATENT_NOISE = 0.15


class Standardised(nn.Module):
    """An autoencoder whose latents are brought to zero mean and unit variance channel by channel.

    Noise on the latents keeps the decoder smooth, and the encoder from hiding details in small
    numbers.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.norm = nn.BatchNorm2d(autoencoder.latent_channels, affine=False, momentum=0.02)

    def forward(self, images: Tensor, noise: float) -> Tensor:
        latents = self.norm(self.autoencoder.encode(images))
        return self.autoencoder.decode(latents + noise * torch.randn_like(latents))

    def folded(self) -> Autoencoder:
        """The autoencoder alone, with the standardisation inside the encoder's last layer."""
        result = copy.deepcopy(self.autoencoder)
        last, scale = result.taesd_encoder[-1], (self.norm.running_var + self.norm.eps).rsqrt()
        last.weight.data *= scale[:, None, None, None]
        last.bias.data = (last.bias - self.norm.running_mean) * scale
        return result.eval().requires_grad_(False)


def reconstruction_loss(reconstructed: Tensor, images: Tensor) -> Tensor:
    """Mean square plus absolute errors of the values and of their differences to neighbours."""
    error = reconstructed - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.square().mean() + 0.2 * error.abs().mean() + 0.2 * edges


@torch.no_grad()
def peak_ratio(autoencoder: Autoencoder, images: Tensor) -> float:
    """Peak signal-to-noise ratio of the reconstruction in decibels."""
    back = autoencoder.decode(autoencoder.encode(images)).clamp(-1, 1)
    return (10 * torch.log10(4 / (back - images).square().mean())).item()


def train(steps: int) -> None:
    """Train for so many steps and write the averaged weights, padded to the full width."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = Standardised(Autoencoder(WIDTH)).to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.001)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    batches = letter_batches()
    held_out, _ = letter_batches(HELD_OUT_FONTS)(16, torch.Generator().manual_seed(SEED + 1))
    running, start = 0.0, time.monotonic()
    for step in range(1, steps + 1):
        scenes, _ = batches(BATCH // 2, generator)
        images = crop(torch.cat([scenes, scenes]), CROP, generator)
        with torch.autocast("cpu", torch.bfloat16):
            reconstructed = model(
                images.contiguous(memory_format=torch.channels_last), LATENT_NOISE
            )
        loss = reconstruction_loss(reconstructed.float(), images)
        descend(loss, model, optimiser)
        schedule.step()
        update_average(average, model, 0.995, step)
        running += loss.item()
        if step % 100 == 0:
            figures = {"loss": round(running / 100, 5), "seconds": round(time.monotonic() - start)}
            record(NAME, step=step, **figures)
            running = 0.0
        if step % 400 == 0 or step == steps:
            result = settled(average, generator).folded()
            record(NAME, step=step, held_out_decibels=round(peak_ratio(result, held_out), 2))
            config = {"width": WIDTH, "latent_channels": result.latent_channels}
            save_weights(NAME, pad(result.state_dict()), config)


@torch.no_grad()
def settled(average: Standardised, generator: torch.Generator) -> Standardised:
    """The averaged weights with the mean and variance of many crops' latents."""
    average.norm.reset_running_stats()
    average.norm.momentum = None  # a plain mean over the batches
    average.norm.train()
    for _ in range(8):
        scenes, _ = letter_batches()(64, generator)
        average.norm(average.autoencoder.encode(crop(scenes, CROP, generator)))
    return average


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    train(arguments.steps)


if __name__ == "__main__":
    main()
