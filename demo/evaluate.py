"""Figures of the model cards: ``python -m demo.evaluate [digits] [emoji] [letters] [oracles]``.

Prints one JSON line a figure. With ``--sheets FOLDER`` it also writes grids of samples as PNG.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from bayesdiff_core.flow_matching import FlowDenoiser, FlowModel
from bayesdiff_core.solver_run import ReferenceSolver, SolverRun
from bayesdiff_core.solvers import ddim, flow_sigmas

from . import data
from .bundle import Network, load_autoencoder, load_decoder, load_model, weights_path
from .contact_sheet import contact_sheet, enlarge, write_picture
from .letters import FONTS, HELD_OUT_FONTS, letter_batches, letter_tiles
from .oracle import Oracle, accepted_quadrants, load_oracle
from .train import held_out_loss, training_batches
from .train_autoencoder import peak_ratio

__all__ = [
    "evaluate_digits",
    "evaluate_emoji",
    "evaluate_letters",
    "evaluate_oracles",
    "frechet_distance",
    "sample",
]

SEED = 2024


@torch.no_grad()
def sample(
    network: Network,
    labels: Tensor,
    guidance_scale: float = 1.0,
    steps: int = 30,
    seed: int = 0,
    batch: int = 64,
) -> Tensor:
    """Samples (B, C, H, W) for labels (B, n_labels), by Euler's method on the model's schedule.

    Not clamped: the values show whether sampling stayed inside [-1, 1].
    """
    config = network.config
    model = FlowModel(network, config.sample_shape, labels)
    solver = ReferenceSolver(ddim, flow_sigmas(steps, config.shift))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), *config.sample_shape, generator=generator)
    parts = []
    for x, y in zip(noise.split(batch), labels.split(batch), strict=True):
        denoiser = FlowDenoiser(model, y, torch.full_like(y, config.null_label), guidance_scale)
        parts.append(SolverRun(solver, denoiser, x).sample())
    return torch.cat(parts)


def evaluate_digits(sheets: Path | None, samples: int) -> None:
    """Share of quadrants that show the digit asked for, by guidance scale."""
    model, _ = load_model("digits")
    _report_model(model)
    _report_scenes(model, sheets, samples)


def evaluate_letters(sheets: Path | None, samples: int) -> None:
    """What the autoencoder keeps, and the share of quadrants that show the letter asked for."""
    model, _ = load_model("letters")
    oracle, decode = load_oracle("letters"), load_decoder("letters")
    autoencoder = load_autoencoder("letters_vae")
    for kind, fonts in (("training fonts", FONTS), ("held-out fonts", HELD_OUT_FONTS)):
        scenes, labels = letter_batches(fonts)(64, torch.Generator().manual_seed(SEED))
        latents = autoencoder.encode(scenes)
        _report(
            autoencoder=kind,
            decibels=peak_ratio(autoencoder, scenes),
            accepted=_accepted(oracle, scenes, labels),
            accepted_decoded=_accepted(oracle, decode(latents), labels),
            latent_std=latents.std().item(),
        )
    _report_model(model)
    _report_scenes(model, sheets, samples)


def evaluate_emoji(sheets: Path | None, samples: int) -> None:
    """Range, agreement with the category, Frechet distance and closeness to training images."""
    model, config = load_model("emoji")
    oracle = load_oracle("emoji")
    _report_model(model)

    training, held_out = data.emoji().split()
    reference = torch.cat([training.images, training.images[training.mirrored].flip(-1)])
    features = oracle.features(training.images)
    _report(
        images="emoji, held out",
        frechet_to_training=frechet_distance(oracle.features(held_out.images), features),
        nearest_training_rms=nearest_distances(held_out.images, reference).median().item(),
        category_recognised=_recognised(oracle, held_out.images, held_out.labels),
    )
    labels = torch.arange(samples)[:, None] % len(config.class_names)
    for guidance in (1.0, 2.0, 3.0):
        images = sample(model, labels, guidance, seed=SEED)
        nearest = nearest_distances(images.clamp(-1, 1), reference)
        _report(
            model="emoji",
            guidance=guidance,
            samples=samples,
            category_recognised=_recognised(oracle, images, labels[:, 0]),
            frechet_to_training=frechet_distance(oracle.features(images.clamp(-1, 1)), features),
            nearest_training_rms=nearest.median().item(),
            copies=(nearest < 0.1).float().mean().item(),
            **_spread(images),
        )
        if sheets:
            _write_sheet(sheets / f"emoji_{guidance}.png", images)


def evaluate_oracles(sheets: Path | None, samples: int) -> None:
    """Accuracy on held-out images."""
    held_out_images = {
        "digits": data.digits().split()[1],
        "emoji": data.emoji().split()[1],
        "letters": letter_tiles(HELD_OUT_FONTS, 1000, SEED),
    }
    for name, held_out in held_out_images.items():
        oracle = load_oracle(name)
        _report(
            oracle=name,
            held_out_images=len(held_out.labels),
            held_out_accuracy=_recognised(oracle, held_out.images, held_out.labels),
            file_bytes=weights_path(f"oracle_{name}").stat().st_size,
        )


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Frechet distance of two feature sets (N, D), (M, D), each taken as a Gaussian.

    Heusel et al., 2017, with the oracle's features in place of Inception's: comparable only
    between runs of this project.
    """
    mean = features.mean(0) - reference.mean(0)
    first, second = features.double().T.cov(), reference.double().T.cov()
    # tr (AB)^(1/2) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2).
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return (mean.double().square().sum() + first.trace() + second.trace() - 2 * cross).item()


def nearest_distances(images: Tensor, reference: Tensor) -> Tensor:
    """Root mean square pixel difference (B,) to the nearest reference image, range [0, 2]."""
    pixels = images[0].numel()
    return torch.cdist(images.flatten(1), reference.flatten(1)).amin(dim=1) / pixels**0.5


def _report_model(model: Network) -> None:
    name, null_label = model.config.name, model.config.null_label
    training, held_out = training_batches(name)
    _report(
        model=name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        file_bytes=weights_path(name).stat().st_size,
        training_loss=held_out_loss(model, training, null_label),
        held_out_loss=held_out_loss(model, held_out, null_label),
    )


def _report_scenes(model: Network, sheets: Path | None, samples: int) -> None:
    """Figures and sheets of scenes of random labels, by guidance scale."""
    config = model.config
    oracle, decode = load_oracle(config.name), load_decoder(config.name)
    generator = torch.Generator().manual_seed(SEED)
    labels = torch.randint(config.null_label, (samples, config.n_labels), generator=generator)
    for guidance in (1.0, 1.5, 3.0):
        latents = sample(model, labels, guidance, seed=SEED)
        scenes = decode(latents)
        in_latents = {} if scenes is latents else {"latent_std": latents.std().item()}
        _report(
            model=config.name,
            guidance=guidance,
            samples=samples,
            accepted=_accepted(oracle, scenes, labels),
            **in_latents,
            **_spread(scenes),
        )
        if sheets:
            _write_sheet(sheets / f"{config.name}_{guidance}.png", scenes)


def _write_sheet(path: Path, images: Tensor) -> None:
    """A sheet of the first 64 small images, or of the first 32 larger ones."""
    count, scale = (64, 3) if images.shape[-1] <= 32 else (32, 1)
    write_picture(path, contact_sheet(enlarge(images[:count], scale), columns=8))


def _accepted(oracle: Oracle, scenes: Tensor, labels: Tensor) -> float:
    return accepted_quadrants(oracle, scenes, labels).float().mean().item()


def _recognised(oracle: Oracle, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (oracle(images.clamp(-1, 1)).argmax(-1) == labels).float().mean().item()


def _spread(images: Tensor) -> dict[str, float]:
    """Extremes over all images, and the smallest and largest standard deviation of one image."""
    deviation = images.flatten(1).std(dim=1)
    return {
        "minimum": images.min().item(),
        "maximum": images.max().item(),
        "std_smallest": deviation.min().item(),
        "std_largest": deviation.max().item(),
    }


def _report(**figures: object) -> None:
    rounded = {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in figures.items()
    }
    print(json.dumps(rounded), flush=True)


def main() -> None:
    """Command line."""
    evaluations = {
        "digits": evaluate_digits,
        "emoji": evaluate_emoji,
        "letters": evaluate_letters,
        "oracles": evaluate_oracles,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(evaluations), metavar="TARGET")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--sheets", type=Path, help="folder for grids of samples")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with torch.no_grad():
        for target in arguments.targets:
            evaluations[target](arguments.sheets, arguments.samples)


if __name__ == "__main__":
    main()
