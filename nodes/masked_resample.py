from dataclasses import replace

from comfy_api.latest import io

from ..bayesdiff_core.resample.rules import RULES
from ..bayesdiff_core.tiling import tile
from .batches import not_connected
from .checked_inputs import checked
from .host.resample.plan import ResampleOptions
from .host.resample.rounds import resample
from .host.validation import check_latent, latent_mask
from .resample_inputs import (
    RECORDED,
    denoise_input,
    noise_mode_inputs,
    override_inputs,
    overrides_of,
    prompt_inputs,
    recorded_guidance_input,
    seed_input,
)
from .resample_report import resample_report
from .types import CATEGORY, Uncertainty


class MaskedResample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskedResample",
            display_name="Masked Resample",
            category=CATEGORY,
            description=(
                "Samples the masked region again, several times, and keeps the best. Everything "
                "outside the mask stays as it is, to the bit."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model the image was sampled with."),
                io.Latent.Input(
                    "latent", tooltip="The latent of UncertainKSampler, or any other."
                ),
                Uncertainty.Input(
                    "uncertainty",
                    optional=True,
                    tooltip=(
                        "Of the same latent. Without it sampler_name, scheduler, steps and cfg "
                        "are needed, and the image is noised anew around the region."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    tooltip=(
                        "Where to sample again, in any size; soft edges blend. One for all images "
                        "or one for each."
                    ),
                ),
                *prompt_inputs(),
                seed_input("seed"),
                denoise_input(),
                io.Int.Input(
                    "candidates",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="How many are sampled at once for each image.",
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default="auto",
                    tooltip=". ".join(f"{name}: {rule.text}" for name, rule in RULES.items()),
                ),
                io.Boolean.Input(
                    "keep_original",
                    default=True,
                    tooltip=(
                        "Whether the image may stay as it is where no candidate beats it. With "
                        "the rule all: whether it comes last in the batch."
                    ),
                ),
                recorded_guidance_input(),
                *noise_mode_inputs(),
                *override_inputs(),
                io.Int.Input(
                    "rounds",
                    default=1,
                    min=1,
                    max=10,
                    optional=True,
                    tooltip=(
                        "Tries again with other noise, each time from what is best so far, until "
                        "no region gets better."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="With the rule all: all first candidates, then all second ones, ...",
                ),
                Uncertainty.Output(display_name="uncertainty"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, model, latent, mask, positive, negative, seed, denoise, candidates, rule,
        keep_original, uncertainty=None, cfg=0.0, noise_mode="denoised", laplace=None,
        sampler_name=RECORDED, scheduler=RECORDED, steps=0, rounds=1,
    ) -> io.NodeOutput:  # fmt: skip
        options = ResampleOptions(
            seed=seed,
            denoise=denoise,
            candidates=candidates,
            rule=rule,
            keep_original=keep_original,
            noise_mode=noise_mode,
            posterior=laplace,
            rounds=rounds,
            overrides=overrides_of(sampler_name, scheduler, steps, cfg),
        )
        return io.NodeOutput(
            *resample_latent(model, latent, uncertainty, mask, positive, negative, options)
        )


def resample_latent(model, latent, uncertainty, mask, positive, negative, options) -> tuple:
    """Sample the masked regions of a LATENT again.

    Arguments:
        model: The MODEL.
        latent: LATENT, samples (B, C, *S).
        uncertainty: Of the run that made it; None where there is none.
        mask: Where to sample again, in any size, shape (B or 1, H, W).
        positive, negative: CONDITIONING of one prompt for all latents, or one for each.
        options: How, see `ResampleOptions`.

    Returns:
        LATENT, the input to the bit outside the mask; its UNCERTAINTY; and a report.

    Raises:
        ValueError: If latent or mask are unusable, or what is asked for cannot be done.
    """
    samples = check_latent(latent)
    region = latent_mask(mask, samples)
    if not region.any():
        unchanged = not_connected("uncertainty") if uncertainty is None else uncertainty
        return latent, unchanged, "The mask is empty: the latent is returned as it came."
    done = resample(model, samples, uncertainty, region, positive, negative, options)
    change = (done.samples - tile(samples, len(done.samples) // len(samples))).float().cpu()
    report = resample_report(done, region, mask.shape[-2:], change, options)
    settings = done.uncertainty.settings
    settings = replace(settings, resampled=(*settings.resampled, report))
    # What else belongs to the input, such as its mask, does not fit more images.
    rest = latent if len(done.samples) == len(samples) else {}
    return {**rest, "samples": done.samples}, replace(done.uncertainty, settings=settings), report
