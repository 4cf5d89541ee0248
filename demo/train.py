"""Train a bundled model: ``python -m demo.train digits|emoji|letters|oracles|oracle_NAME``.

Runs on the CPU in bfloat16 with float32 master weights. A run that was interrupted goes on from
its last checkpoint in ``.cache/train``; figures are appended to ``NAME.jsonl`` beside it. The
exponential moving average of the weights is what ends up in ``demo/models``.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import data
from .bundle import Config, build_network, save_model, save_weights, write_whole
from .latents import latent_pool, pool_batches
from .letters import FONTS, HELD_OUT_FONTS, LETTERS, letter_tiles
from .network import SceneConfig
from .oracle import Oracle
from .transformer import TransformerConfig

__all__ = [
    "FOLDER",
    "SEED",
    "descend",
    "held_out_loss",
    "record",
    "training_batches",
    "update_average",
]

FOLDER = data.CACHE / "train"
SEED = 0
LABEL_DROPOUT = 0.1


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How long and how fast a diffusion model learns."""

    config: Config
    steps: int
    time_shift: float = 1.0
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 200
    ema: float = 0.999


RECIPES = {
    "digits": Recipe(
        SceneConfig("digits", 1, 32, (2, 2), tuple("0123456789"), widths=(32, 64, 64), blocks=1),
        steps=600,
    ),
    "emoji": Recipe(
        SceneConfig("emoji", 3, 32, (1, 1), data.EMOJI_CATEGORIES, widths=(32, 96, 96), blocks=1),
        steps=3800,
    ),
    "letters": Recipe(
        TransformerConfig("letters", 16, 16, (2, 2), LETTERS, depth=2),
        steps=7800,
        batch=32,
        time_shift=2.0,
    ),
}

ORACLES = tuple(f"oracle_{name}" for name in RECIPES)


def flow_matching_loss(
    model: nn.Module,
    x0: Tensor,
    y: Tensor,
    null_label: int,
    generator: torch.Generator,
    time_shift: float = 1.0,
) -> Tensor:
    """Mean squared error () of the velocity for x0 (B, C, H, W) with labels y (B, n_labels).

    Some labels are replaced by `null_label`, for guidance. Times are logit-normal; a `time_shift`
    above 1 makes the noisy ones more frequent.
    """
    logit = 1.2 * torch.randn(len(x0), generator=generator) + math.log(time_shift)
    t = torch.sigmoid(logit)
    noise = torch.randn(x0.shape, generator=generator)
    dropped = torch.rand(len(x0), 1, generator=generator) < LABEL_DROPOUT
    y = y.masked_fill(dropped, null_label)
    weight = t[:, None, None, None]
    x_t = ((1 - weight) * x0 + weight * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        v = model(x_t, t, y)
    return (v.float() - (noise - x0)).square().mean()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to 2%."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def descend(loss: Tensor, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """One step down the gradient, whose norm is clipped at 1."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average, shorter in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


@torch.no_grad()
def held_out_loss(model: nn.Module, batches: data.Batches, null_label: int) -> float:
    """Loss on 512 held-out images, times and noise always the same."""
    generator = torch.Generator().manual_seed(SEED + 1)
    losses = [
        flow_matching_loss(model, *batches(128, generator), null_label, generator)
        for _ in range(4)
    ]
    return torch.stack(losses).mean().item()


def training_batches(name: str) -> tuple[data.Batches, data.Batches]:
    """Batches of a model's training images, or latents, and of held-out ones."""
    if name == "digits":
        training, held_out = map(data.scene_batches, data.digits().split())
    elif name == "emoji":
        training, held_out = map(data.emoji_batches, data.emoji().split())
    else:
        training = pool_batches(*latent_pool(4000, SEED))
        held_out = pool_batches(*latent_pool(256, SEED + 1))
    return training, held_out


def train_diffusion(name: str, steps: int | None, export_every: int) -> None:
    """Train one of `RECIPES`, from its checkpoint where there is one.

    `steps` None takes the recipe's. The averaged weights are written with every checkpoint.
    """
    recipe = RECIPES[name]
    recipe = dataclasses.replace(recipe, steps=steps or recipe.steps)
    batches, held_out = training_batches(name)
    torch.manual_seed(SEED)
    model = build_network(recipe.config).to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    generator = torch.Generator().manual_seed(SEED)
    null_label = recipe.config.null_label

    checkpoint, step, seconds = FOLDER / f"{name}.pt", 0, 0.0
    kept = {"model": model, "average": average, "optimiser": optimiser}
    if checkpoint.is_file():
        state = torch.load(checkpoint)
        for key, part in kept.items():
            part.load_state_dict(state[key])
        generator.set_state(state["generator"])
        step, seconds = state["step"], state["seconds"]

    running, last = 0.0, time.monotonic()
    while step < recipe.steps:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step)
        images, labels = batches(recipe.batch, generator)
        loss = flow_matching_loss(model, images, labels, null_label, generator, recipe.time_shift)
        descend(loss, model, optimiser)
        update_average(average, model, recipe.ema, step)
        step += 1
        running += loss.item()

        if step % 100 == 0:
            seconds, last = seconds + time.monotonic() - last, time.monotonic()
            record(name, step=step, loss=round(running / 100, 5), seconds=round(seconds))
            running = 0.0
        if step % export_every == 0 or step == recipe.steps:
            loss_held_out = held_out_loss(average, held_out, null_label)
            record(name, step=step, held_out_loss=round(loss_held_out, 5))
            save_model(average)
            state = {key: part.state_dict() for key, part in kept.items()}
            state |= {"generator": generator.get_state(), "step": step, "seconds": seconds}
            write_whole(checkpoint, partial(torch.save, state))


def train_oracle(
    name: str,
    images: tuple[data.Images, data.Images],
    oracle: Oracle,
    epochs: int,
    shift: int,
    batch: int = 64,
) -> None:
    """Train a classifier on real `images`, moved by up to `shift` pixels, and write it.

    `images` are those to train on and those held out.
    """
    training, held_out = images
    generator = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.AdamW(oracle.parameters(), weight_decay=0.05)
    steps = epochs * (len(training.labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    oracle = oracle.to(memory_format=torch.channels_last).train()
    for _ in range(epochs):
        order = torch.randperm(len(training.labels), generator=generator)
        for index in order.split(batch)[: steps // epochs]:
            chosen = training[index]
            images = augmented(chosen, shift, generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits = oracle(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), chosen.labels, label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        correct = oracle.eval()(held_out.images).argmax(-1) == held_out.labels
    record(name, epochs=epochs, held_out_accuracy=correct.float().mean().item())
    save_weights(name, oracle.state_dict(), oracle.config)


def augmented(source: data.Images, shift: int, generator: torch.Generator) -> Tensor:
    """Images moved at random by up to ``shift`` pixels, edges repeated, half of them mirrored.

    Those that may not be mirrored are only moved.
    """
    images = source.mirror(generator)
    padded = F.pad(images, [shift] * 4, mode="replicate")
    return data.crop(padded, images.shape[-1], generator)


def train_oracles(names: tuple[str, ...]) -> None:
    """Train some of `ORACLES` on real images."""
    for name in names:
        torch.manual_seed(SEED)
        if name == "oracle_digits":
            oracle = Oracle(1, (32, 64), tuple("0123456789"))
            train_oracle(name, data.digits().split(), oracle, 12, 1)
        elif name == "oracle_emoji":
            oracle = Oracle(3, (32, 64, 128), data.EMOJI_CATEGORIES)
            train_oracle(name, data.emoji().split(), oracle, 30, 3)
        else:
            oracle = Oracle(1, (16, 32, 64), LETTERS, shrink=2)
            images = letter_tiles(FONTS, 8000, SEED), letter_tiles(HELD_OUT_FONTS, 1000, SEED)
            train_oracle(name, images, oracle, 6, 2)


def record(name: str, **figures: float) -> None:
    """Print figures and append them to the run's log."""
    line = json.dumps({"name": name, **figures})
    print(line, flush=True)
    with (FOLDER / f"{name}.jsonl").open("a") as log:
        log.write(line + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=[*RECIPES, "oracles", *ORACLES])
    parser.add_argument("--steps", type=int, help="length of the run; default: the recipe's")
    parser.add_argument("--export-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    if arguments.target == "oracles":
        train_oracles(ORACLES)
    elif arguments.target in ORACLES:
        train_oracles((arguments.target,))
    else:
        train_diffusion(arguments.target, arguments.steps, arguments.export_every)


if __name__ == "__main__":
    main()
