"""Sampling a region again: the core's `MaskedRun` inside the host's sampler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...bayesdiff_core.process import tile
from ...bayesdiff_core.recording import Recorder, Recording
from ...bayesdiff_core.region_choice import (
    compose,
    paint,
    pick_regions,
    region_labels,
    region_scores,
)
from ...bayesdiff_core.resample import MaskedRun
from ...bayesdiff_core.signals import LATE, TrajectoryVariance, trajectory_variance
from ...bayesdiff_core.uncertainty import Signal, Uncertainty
from .checks import check_batches, check_latent
from .conds import align
from .contrast import contrast_map, has_two_sides
from .process import HostProcess, SamplerCall
from .sampler import sampler_from

__all__ = [
    "RULES",
    "Repair",
    "ResampleSampler",
    "check_recording",
    "latent_mask",
    "resample",
    "sample_again",
]

RULES = {
    "auto": "contrast where there is a negative conditioning, else trajectory",
    "contrast": "the candidate whose region shows the prompt best",
    "trajectory": "the candidate whose region was decided earliest",
    "random": "the first candidate, unseen",
}


@dataclass(frozen=True)
class Repair:
    """How a region is sampled again; `denoise` is the share of the schedule that runs again."""

    seed: int = 0
    denoise: float = 0.7
    candidates: int = 4
    rule: str = "auto"
    keep_original: bool = True
    cfg: float | None = None
    budget_mb: float = 2048.0


def resample(
    model: Any,
    latent: dict[str, Any],
    uncertainty: Uncertainty,
    mask: Tensor,
    positive: Any,
    negative: Any,
    repair: Repair,
) -> tuple[dict[str, Any], Uncertainty, str]:
    """The latent with the masked region sampled again, its uncertainty, and a report.

    Outside the mask (B or 1, H, W), whatever its size, the latent stays the same to the bit.
    """
    samples = check_latent(latent)
    recording = check_recording(uncertainty, samples)
    region = latent_mask(mask, samples)
    if not region.any():
        return latent, uncertainty, "The mask is empty: the latent is returned as it came."
    run = MaskedRun(recording, region, repair.denoise, repair.candidates)
    sampler = ResampleSampler(sampler_from(uncertainty.metadata), uncertainty, run, repair)
    result = sample_again(model, samples, positive, negative, sampler)
    return {**latent, "samples": result}, sampler.result, sampler.report


def sample_again(
    model: Any, samples: Tensor, positive: Any, negative: Any, sampler: ResampleSampler
) -> Tensor:
    """What `sampler` makes of latents (B, C, *S), the same to the bit where its mask is 0."""
    check_batches("positive", positive, len(samples))
    check_batches("negative", negative, len(samples))
    run, repair = sampler.run, sampler.repair
    cfg = sampler.uncertainty.metadata.get("cfg") if repair.cfg is None else repair.cfg
    if cfg is None:
        raise ValueError("The guidance scale of this image is not known; enter it as cfg.")
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    result = guider.sample(
        torch.zeros_like(samples),
        samples,
        sampler,
        run.sigmas.clone(),
        callback=latent_preview.prepare_callback(model, len(run.sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=repair.seed,
    ).to(samples)
    copies = len(result) // len(samples)
    outside = tile(run.mask == 0, copies).expand_as(result)
    return torch.where(outside, tile(samples, copies), result)


class ResampleSampler(comfy.samplers.KSAMPLER):
    """Runs the candidates with the sampler of the recording and keeps the best."""

    result: Uncertainty
    report: str

    def __init__(
        self, sampler: Any, uncertainty: Uncertainty, run: MaskedRun, repair: Repair
    ) -> None:
        super().__init__(self._run, sampler.extra_options, sampler.inpaint_options)
        self.function = sampler.sampler_function
        self.uncertainty = uncertainty
        self.run = run
        self.repair = repair

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
        candidates = super().sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask,
            disable_pbar,
        )  # fmt: skip
        leave = model_wrap.inner_model.model_sampling.inverse_noise_scaling
        original = leave(sigmas[-1], self.run.recording.final.to(candidates))
        return self._choose(model_wrap, candidates, original, extra_args["model_options"])

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
        call = SamplerCall(
            self.function,
            self.uncertainty.metadata["sampler_name"],
            model_k,
            tile(x, self.run.copies),
            sigmas,
            extra_args,
            callback,
            disable,
            options,
            copies=self.run.copies,
        )
        self.run = run = _resumed(self.run, HostProcess(call))
        start = run.start(self._renoise(guider, sigmas), self._noise(x))
        process = HostProcess(replace(call, x=start))
        total = len(run.recording.sigmas)
        self._trajectory = TrajectoryVariance(total)
        self._recorder = Recorder(total - run.first_evaluation, self.repair.budget_mb)
        process.observers = [_Later(self._trajectory, run.first_evaluation), self._recorder]
        self._final = run.finish(process.sample(run.evaluate(process.denoise)))
        return self._final

    def _renoise(self, guider: Any, sigmas: Tensor) -> Any:
        scaling = guider.inner_model.model_sampling.noise_scaling
        full = self.max_denoise(guider, sigmas)
        return lambda sigma, noise, clean: scaling(sigma, noise, clean, full)

    def _noise(self, like: Tensor) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(self.repair.seed)
        shape = (self.run.copies * len(like), *like.shape[1:])
        return torch.randn(shape, generator=generator).to(like)

    def _choose(
        self, guider: Any, candidates: Tensor, original: Tensor, options: dict[str, Any]
    ) -> Tensor:
        """The best candidate of every region (B, C, *S); leaves result and report behind."""
        rule = self._rule(guider)
        maps = self._maps(rule, guider, torch.cat([candidates, original]), options)
        labels = region_labels(self.run.mask)
        scores = region_scores(maps, self.run.mask, labels.to(maps.device)).cpu()
        if rule == "random":
            picked = torch.where(scores[0].isnan(), -1, 0)
        else:
            picked = pick_regions(scores[:-1], scores[-1] if self.repair.keep_original else None)
        take = paint(picked, labels)
        self.report = _report(rule, scores, picked)
        self.result = self._describe(rule, take, maps)
        return compose(candidates.unflatten(0, (self.run.copies, -1)), original, take)

    def _rule(self, guider: Any) -> str:
        two_sided = has_two_sides(guider.conds)
        if self.repair.rule == "auto":
            return "contrast" if two_sided else "trajectory"
        if self.repair.rule == "contrast" and not two_sided:
            raise ValueError("The rule contrast needs a negative conditioning; use trajectory.")
        return self.repair.rule

    def _maps(self, rule: str, guider: Any, latents: Tensor, options: dict[str, Any]) -> Tensor:
        """What the rule looks at, (n + 1, B, *S), the original last; low is good."""
        count = self.run.copies + 1
        if rule == "contrast":
            model = guider.inner_model
            maps = contrast_map(
                model, guider.conds, latents, options, self.repair.seed, copies=count
            )
            return maps.unflatten(0, (count, -1))
        maps = self._trajectory.map()
        first = max(self.run.first_evaluation, _first_late(self.run.recording))
        original = trajectory_variance(self.run.recording.denoised[first:]).to(maps)
        return torch.cat([maps, original]).unflatten(0, (count, -1))

    def _describe(self, rule: str, take: Tensor, maps: Tensor) -> Uncertainty:
        """The uncertainty of the result: new where a candidate was taken, else as it was."""
        old = self.uncertainty.signal("trajectory")
        new = self._trajectory.map().cpu().float().unflatten(0, (self.run.copies, -1))
        signals = {"trajectory": Signal(compose(new, old.map, take), old.unit)}
        if rule == "contrast":
            maps = maps.cpu().float()
            signals["contrast"] = Signal(compose(maps[:-1], maps[-1], take), "latent error")
        history = [*self.uncertainty.metadata.get("resampled", ()), self.report]
        return Uncertainty(
            signals,
            self._record(take),
            None,
            {**self.uncertainty.metadata, "resampled": history, "method": None},
        )

    def _record(self, take: Tensor) -> Recording | None:
        """The recording as if the run had taken the chosen way from the start."""
        old, first = self.run.recording, self.run.first_evaluation
        new = self._recorder.finish(self._final, old.schedule)
        if new is None or len(new.states) != len(old.states) - first:
            return None
        copies, mask = self.run.copies, self.run.mask.cpu()
        inside = tile(mask, copies)

        def taken(candidates: Tensor, recorded: Tensor) -> Tensor:
            return compose(candidates.to(recorded).unflatten(0, (copies, -1)), recorded, take)

        def joined(before: Tensor, after: Tensor) -> Tensor:
            """Before the start as it was, then the chosen candidates inside the mask."""
            steps = []
            for recorded, candidates in zip(before[first:], after, strict=True):
                blended = candidates * inside + tile(recorded, copies) * (1 - inside)
                steps.append(taken(blended, recorded))
            return torch.cat([before[:first], torch.stack(steps).to(before)])

        return Recording(
            joined(old.states, new.states),
            joined(old.denoised, new.denoised),
            old.sigmas,
            old.schedule,
            taken(new.final, old.final),
        )


def _resumed(run: MaskedRun, process: HostProcess) -> MaskedRun:
    """`run` from the recorded evaluation at which the sampler takes it up again.

    Raises ValueError when the sampler would not come by the recorded states.
    """
    if process.adaptive:
        raise ValueError(
            f"The sampler '{process.name}' chooses its steps by the image, so a part of its run "
            "cannot be done again. Sample the image with another one, such as dpmpp_2m."
        )
    run = replace(run, evaluations=process.trace.evaluations)
    recorded, sigmas = run.recording.sigmas[run.first_evaluation :], process.trace.sigmas
    if len(sigmas) != len(recorded) or not torch.allclose(sigmas, recorded, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"The sampler '{process.name}' takes other steps when it runs only the last "
            f"{run.denoise:.0%} of its schedule. Resample with denoise 1, or sample the image "
            "with another sampler, such as dpmpp_2m."
        )
    return run


@dataclass(frozen=True)
class _Later:
    """An observer of a whole run that sees only its end."""

    observer: TrajectoryVariance
    first: int

    def observe(self, k: int, z: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        self.observer.observe(self.first + k, z, sigma, denoised)


def _first_late(recording: Recording) -> int:
    """The first evaluation that the trajectory's variance looks at."""
    count = len(recording.sigmas)
    return next(k for k in range(count) if k >= count * (1 - LATE))


def _report(rule: str, scores: Tensor, picked: Tensor) -> str:
    """A line for each region, from scores (N + 1, B, R), the original's last, and the choice."""
    lines = [f"{len(scores) - 1} candidates, chosen by {rule}: low is good"]
    for image, choices in enumerate(picked.tolist()):
        there = (~scores[:, image].isnan().all(0)).nonzero()[:, 0].tolist()
        if not there:
            lines.append(f"image {image + 1}: nothing masked")
        for region in there:
            name = f", region {region + 1}" if len(there) > 1 else ""
            before, found = scores[-1, image, region].item(), scores[:-1, image, region]
            if choices[region] < 0:
                text = f"kept the original, {before:.4g}; the best candidate has {found.min():.4g}"
            else:
                text = (
                    f"{before:.4g} became {found[choices[region]]:.4g} with candidate "
                    f"{choices[region] + 1}"
                )
            lines.append(f"image {image + 1}{name}: {text}")
    return "\n".join(lines)


def latent_mask(mask: Tensor, samples: Tensor) -> Tensor:
    """Mask (B, 1, *S) in [0, 1] at the size of the latents. Raises ValueError if it cannot be."""
    mask = mask.detach().cpu().float()
    if not torch.isfinite(mask).all():
        raise ValueError("The mask holds NaN or infinite values. Make it anew.")
    count = mask.reshape(-1, *mask.shape[-2:]).shape[0]
    if samples.ndim == 4 and count not in (1, len(samples)):
        raise ValueError(
            f"There are {count} masks but {len(samples)} latents. Give one mask for all, or one "
            "for each."
        )
    shape = (len(samples), 1, *samples.shape[2:])
    return comfy.utils.reshape_mask(mask, shape).clamp(0, 1).contiguous()


def check_recording(uncertainty: Uncertainty, samples: Tensor) -> Recording:
    """The recording of these latents (B, C, *S). Raises ValueError where there is none."""
    recording = uncertainty.recording
    if recording is None:
        raise ValueError(
            "This UNCERTAINTY holds no recorded trajectory. Raise recording_mb in "
            "UncertainKSampler and sample again."
        )
    if recording.final.shape != samples.shape:
        raise ValueError(
            f"The latent has the shape {tuple(samples.shape)} but the UNCERTAINTY was recorded "
            f"for {tuple(recording.final.shape)}. Connect both from the same UncertainKSampler."
        )
    return recording
