import torch
from comfy_api.latest import io

from ..bayesdiff_core.ranking import keep_count, keep_percent, rank
from .batches import not_connected, sample_of
from .checked_inputs import checked
from .inputs import signal_input
from .types import CATEGORY, Uncertainty

KEEP = {
    "all": "every image, sorted",
    "count": "the first few, as many as count says",
    "percent": "the first share of them, as percent says",
}


class Rank(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BayesDiffRank",
            display_name="Rank by Uncertainty",
            category=CATEGORY,
            description=(
                "Sorts images by the score of a signal and keeps the best of them. One batch in "
                "gives one batch out; several batches, as a list, are ranked together and come "
                "out as a list of single images."
            ),
            is_input_list=True,
            inputs=[
                Uncertainty.Input(
                    "uncertainty", tooltip="From UncertainKSampler; decides the order."
                ),
                signal_input("Whose score sorts the images: the mean of the map's highest tenth."),
                io.Combo.Input(
                    "order",
                    options=["best first", "worst first"],
                    default="best first",
                    tooltip="Best is the lowest score; worst first shows what a filter drops.",
                ),
                io.Combo.Input(
                    "keep",
                    options=list(KEEP),
                    default="all",
                    tooltip="\n".join(f"{name}: {text}." for name, text in KEEP.items()),
                ),
                io.Int.Input(
                    "count", default=4, min=1, max=4096, tooltip="Images to keep, with keep count."
                ),
                io.Float.Input(
                    "percent",
                    default=83.0,
                    min=0.1,
                    max=100.0,
                    step=0.1,
                    tooltip="Percentage of images to keep, with keep percent; rounded up.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The decoded images, in the same order."
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="The latents, in the same order."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", is_output_list=True),
                io.Latent.Output(display_name="latent", is_output_list=True),
                Uncertainty.Output(display_name="uncertainty", is_output_list=True),
                io.Float.Output(display_name="scores", is_output_list=True),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, uncertainty, signal, order, keep, count, percent, image=None, latent=None
    ) -> io.NodeOutput:
        scores = torch.cat([u.signal(signal[0]).scores for u in uncertainty])
        places = [(i, j) for i, u in enumerate(uncertainty) for j in range(u.batch)]
        direction = "ascending" if order[0] == "best first" else "descending"
        chosen = rank(scores, direction)
        if keep[0] == "count":
            chosen = keep_count(chosen, count[0])
        elif keep[0] == "percent":
            chosen = keep_percent(chosen, percent[0])
        sizes = [u.batch for u in uncertainty]
        kept = [places[i] for i in chosen.tolist()]
        # One batch stays one; of several, each image goes on alone.
        groups = [(0, chosen)] if len(sizes) == 1 else [(i, torch.tensor([j])) for i, j in kept]
        return io.NodeOutput(
            _select("image", image, sizes, groups),
            _select("latent", latent, sizes, groups),
            [uncertainty[i].select(index) for i, index in groups],
            scores[chosen].tolist(),
            _report(signal[0], scores, kept, chosen, len(sizes) > 1),
        )


def _select(name, batches, sizes, groups) -> list:
    """The chosen samples of `batches`, which are as many as the uncertainties."""
    if batches is None:
        return [not_connected(name)]
    found = [len(batch["samples"] if name == "latent" else batch) for batch in batches]
    if found != sizes:
        raise ValueError(
            f"The {name} input has batches of {found} but the uncertainty {sizes}: connect the "
            "images of the same run, in the same order."
        )
    return [sample_of(batches[i], index) for i, index in groups]


def _report(signal, scores, kept, chosen, several) -> str:
    lines = [f"{len(kept)} of {len(scores)} kept, by {signal}"]
    for place, ((batch, index), score) in enumerate(zip(kept, scores[chosen].tolist()), start=1):
        where = f"batch {batch + 1}, image {index + 1}" if several else f"image {index + 1}"
        lines.append(f"{place}. {where}: {score:.4g}")
    return "\n".join(lines)
