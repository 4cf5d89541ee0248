"""Values that another node is linked to an input with: the host does not check their range."""

import pytest
import torch

from tests.host.resampling import left_half

NAN = float("nan")


@pytest.fixture(scope="module")
def sampled(scene):
    """Inputs that suit each node, from one run."""
    samples, uncertainty = scene.uncertain()
    latent = {"samples": samples}
    prompts = {"positive": scene.positive, "negative": scene.negative}
    again = {"model": scene.model, "latent": latent, "uncertainty": uncertainty, "seed": 1}
    return {
        "MaskedResample": {
            **again, **prompts, "mask": left_half(), "denoise": 0.7, "candidates": 1,
            "rule": "random", "keep_original": True,
        },
        "BayesDiffDiversity": {
            **again, **prompts, "variants": 1, "denoise": 0.7, "signal": "trajectory",
            "percentile": 75.0,
        },
        "LaplaceFit": {
            "model": scene.model, "latents": latent, "conditioning": scene.positive, "draws": 1,
            "structure": "auto", "seed": 0,
        },
        "BayesDiffContrast": {"model": scene.model, "latent": latent, **prompts, "seed": 0},
        "BayesDiffUncertaintyPlot": {
            "uncertainty": uncertainty, "signal": "artifact", "colormap": "inferno", "width": 512,
        },
        "UncertaintyHeatmap": {
            "uncertainty": uncertainty, "signal": "artifact", "display": "overlay",
            "colormap": "inferno", "scale": "image", "opacity": 0.7, "threshold": 90.0,
            "grow": 0.0, "feather": 0.0,
        },
        "BayesDiffRank": {
            "uncertainty": uncertainty, "signal": "artifact", "order": "best first",
            "keep": "all", "count": 1, "percent": 50.0,
        },
        "UncertainKSampler": scene.inputs(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("node_id", "name", "values"),
    [
        ("MaskedResample", "candidates", [0, -1, 65, 1.5, None]),
        ("MaskedResample", "rounds", [0, 11]),
        ("MaskedResample", "denoise", [0.0, 1.5, NAN]),
        ("MaskedResample", "steps", [-1]),
        ("MaskedResample", "seed", [-1, 1 << 64]),
        ("MaskedResample", "rule", ["best"]),
        ("MaskedResample", "noise_mode", ["loud"]),
        ("MaskedResample", "scheduler", ["never"]),
        ("BayesDiffDiversity", "variants", [0]),
        ("BayesDiffDiversity", "percentile", [-1.0, 100.0, NAN]),
        ("BayesDiffDiversity", "denoise", [0.0, NAN]),
        ("BayesDiffDiversity", "along", ["nothing"]),
        ("LaplaceFit", "draws", [0, -3]),
        ("LaplaceFit", "structure", ["round"]),
        ("LaplaceFit", "seed", [1 << 64]),
        ("BayesDiffContrast", "seed", [1 << 64]),
        ("BayesDiffUncertaintyPlot", "width", [0, 1, 255]),
        ("BayesDiffUncertaintyPlot", "colormap", ["jet"]),
        ("UncertaintyHeatmap", "opacity", [1.5, NAN]),
        ("UncertaintyHeatmap", "threshold", [101.0, NAN]),
        ("UncertaintyHeatmap", "feather", [-1.0, NAN, float("inf")]),
        ("UncertaintyHeatmap", "grow", [NAN]),
        ("UncertaintyHeatmap", "scale_low", [NAN]),
        ("UncertaintyHeatmap", "display", ["hologram"]),
        ("UncertaintyHeatmap", "step", [-1]),
        ("BayesDiffRank", "count", [0]),
        ("BayesDiffRank", "percent", [0.0, NAN]),
        ("BayesDiffRank", "order", ["any"]),
        ("UncertainKSampler", "members", [1]),
        ("UncertainKSampler", "probes", [0]),
        ("UncertainKSampler", "refreshes", [0]),
        ("UncertainKSampler", "skip", [0]),
        ("UncertainKSampler", "recording_mb", [-1]),
        ("UncertainKSampler", "method", ["magic"]),
        ("UncertainKSampler", "preset", ["free"]),
    ],
)
def test_what_is_out_of_range_is_refused_in_words(scene, sampled, node_id, name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"The input {name} must be") as raised:
            scene.host.call(node_id, **{**sampled[node_id], name: value})
        assert str(value) in str(raised.value)


def test_every_node_takes_the_ends_of_its_ranges(scene, sampled):
    for node_id, changes in {
        "MaskedResample": {"denoise": 1.0, "rounds": 10, "steps": 0, "cfg": 0.0},
        "BayesDiffDiversity": {"percentile": 0.0},
        "BayesDiffUncertaintyPlot": {"width": 256},
        "UncertaintyHeatmap": {"opacity": 0.0, "threshold": 0.0, "grow": -512.0},
        "BayesDiffRank": {"percent": 100.0, "keep": "percent"},
        "UncertainKSampler": {"recording_mb": 0},
    }.items():
        assert scene.host.call(node_id, **{**sampled[node_id], **changes}).outputs


@pytest.mark.parametrize("display", ["overlay", "heatmap", "side by side", "contour"])
def test_pictures_stay_within_0_and_1_whatever_the_images_hold(scene, sampled, display):
    inputs = {**sampled["UncertaintyHeatmap"], "display": display, "color_bar": True}
    image = 5 * torch.randn(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    image[0, 0, 0, 0] = float("nan")
    image[1, 5, 5] = float("inf")
    picture, mask, *_ = scene.host.call("UncertaintyHeatmap", **inputs, image=image).outputs
    for values in (picture, mask):
        assert torch.isfinite(values).all()
        assert values.min() >= 0 and values.max() <= 1


@pytest.mark.parametrize("value", [1e17, 1e29, 3e38, -3e38])
def test_a_map_of_huge_values_is_drawn_or_refused_in_words(host, value):
    core = host.module("bayesdiff_core.uncertainty")
    for maps in (torch.full((1, 4, 4), value), torch.eye(4)[None] * value):
        uncertainty = core.Uncertainty({"trajectory": core.Signal(maps, "unit")})
        common = {"uncertainty": uncertainty, "signal": "artifact", "colormap": "inferno"}
        look = {"display": "overlay", "scale": "image", "opacity": 0.7, "color_bar": True}
        region = {"threshold": 90.0, "grow": 0.0, "feather": 0.0}
        for node_id, inputs in (
            ("UncertaintyHeatmap", {**common, **look, **region}),
            ("BayesDiffUncertaintyPlot", {**common, "width": 256}),
        ):
            if abs(value) > 1e30:
                with pytest.raises(ValueError, match="values as large as 3e.38; the run"):
                    host.call(node_id, **inputs)
            else:
                assert torch.isfinite(host.call(node_id, **inputs).outputs[0]).all()
