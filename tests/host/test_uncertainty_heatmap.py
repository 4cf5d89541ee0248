"""UncertaintyHeatmap and the plot in the host: outputs, the page's payload, errors in words."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.payload import header_of, maps_of

LOOK = {
    **{"signal": "artifact", "display": "overlay", "colormap": "inferno", "scale": "image"},
    **{"opacity": 0.7, "threshold": 90.0, "grow": 0.0, "feather": 0.0},
}


@pytest.fixture(scope="module")
def make(host):
    """Builds an UNCERTAINTY of the loaded extension."""
    core = host.module("bayesdiff_core.uncertainty")
    recordings = host.module("bayesdiff_core.recording")

    def build(batch=2, size=(16, 24), names=("trajectory", "contrast", "posterior"), frames=()):
        generator = torch.Generator().manual_seed(0)
        shape = (batch, *frames, *size)
        signals = {
            name: core.Signal(torch.rand(shape, generator=generator), f"unit of {name}")
            for name in names
        }
        steps = torch.randn(5, batch, 3, *frames, *size, generator=generator)
        recording = recordings.Recording(
            steps, steps, torch.linspace(1, 0.2, 5), torch.linspace(1, 0, 6), steps[-1]
        )
        std = 0.05 * torch.rand(batch, 3, *frames, *size, generator=generator)
        return core.Uncertainty(signals, recording, std if "posterior" in names else None)

    return build


def heatmap(host, uncertainty, **changes):
    return host.call("UncertaintyHeatmap", uncertainty=uncertainty, **{**LOOK, **changes})


def payload_of(host, result):
    (payload,) = result.ui["bayesdiff"]
    return payload, (host.base_directory / "temp" / payload["values"]["filename"]).read_bytes()


def test_outputs_have_the_size_of_the_image(host, make):
    image = torch.rand(2, 128, 192, 3)
    picture, mask, boxes, segs = heatmap(host, make(), image=image).outputs
    assert picture.shape == image.shape
    assert mask.shape == (2, 128, 192)
    assert len(boxes) == len(segs) == 2
    left, top, right, bottom = boxes[0][0]
    assert mask[0, top:bottom, left:right].max() == 1
    assert segs[0][0] == (128, 192)
    assert segs[0][1][0].bbox == boxes[0][0]


def test_the_page_receives_the_values_of_every_signal(host, make):
    uncertainty = make()
    payload, content = payload_of(host, heatmap(host, uncertainty, image=torch.rand(2, 32, 48, 3)))
    header = header_of(content)
    assert header["artifact"] == "contrast"
    for layer in header["signals"]:
        known = uncertainty.signals[layer["name"]].map.double().numpy()
        assert np.abs(maps_of(content, layer) - known).max() < 1e-4
    assert len(header["steps"]) == 5
    assert len(payload["images"]) == 2
    for image in payload["images"]:
        assert Path(host.base_directory / "temp" / image["filename"]).is_file()


def test_without_an_image_it_has_the_size_of_the_map(host, make):
    result = heatmap(host, make())
    assert result.outputs[0].shape == (2, 16, 24, 3)
    assert payload_of(host, result)[0]["images"] == []


def test_a_single_step_is_what_was_undecided_then(host, make):
    uncertainty = make()
    last = heatmap(host, uncertainty, step=5, threshold_by="value", threshold_value=0.0)
    assert last.outputs[1].max() == 0
    first = heatmap(host, uncertainty, step=1, threshold_by="value", threshold_value=0.0)
    assert first.outputs[1].mean() == 1


def test_video_gives_a_picture_a_frame(host, make):
    uncertainty = make(batch=1, frames=(3,))
    picture, mask, boxes, _ = heatmap(host, uncertainty, image=torch.rand(3, 64, 96, 3)).outputs
    assert picture.shape == (3, 64, 96, 3)
    assert mask.shape == (3, 64, 96)
    assert len(boxes) == 3


def test_a_vae_turns_the_posterior_into_a_std_of_pixels(host, make):
    vae = host.module("nodes.host.demo_models").pixel_vae(3)
    uncertainty = make()
    image = 0.5 + 0.1 * torch.rand(2, 16, 24, 3)
    result = heatmap(host, uncertainty, image=image, vae=vae, signal="posterior")
    _, content = payload_of(host, result)
    (layer,) = [s for s in header_of(content)["signals"] if s["name"] == "posterior"]
    assert layer["unit"] == "pixel std"
    # The picture of this VAE is half its latent; the root mean square is over three colours.
    known = (uncertainty.latent_std.square().mean(1).sqrt() / 2).double().numpy()
    assert np.abs(maps_of(content, layer) - known).max() < 1e-3


def test_the_error_of_a_missing_signal_says_what_to_connect(host, make):
    with pytest.raises(ValueError, match="LAPLACE"):
        heatmap(host, make(names=("trajectory",)), signal="posterior")


@pytest.mark.parametrize("with_vae", [False, True])
def test_images_of_another_batch_are_refused(host, make, with_vae):
    vae = host.module("nodes.host.demo_models").pixel_vae(3) if with_vae else None
    with pytest.raises(ValueError, match="2 uncertainty maps but 3 images"):
        heatmap(host, make(), image=torch.rand(3, 16, 24, 3), vae=vae)


@pytest.mark.parametrize(("text", "first"), [("", []), ("What it is for.", ["What it is for."])])
def test_the_tooltip_of_a_signal_input_explains_every_signal(host, text, first):
    known = host.module("bayesdiff_core.uncertainty").SIGNALS
    made = host.module("nodes.inputs").signal_input(text)
    assert made.options == list(known)
    assert made.tooltip.splitlines() == [*first, *(f"{n}: {k.text}." for n, k in known.items())]


@pytest.mark.parametrize("recorded", [True, False], ids=["steps", "histogram alone"])
def test_the_plot_has_the_width_that_was_asked_for(host, make, recorded):
    uncertainty = make()
    if not recorded:
        uncertainty.recording = None
    result = host.call(
        "BayesDiffUncertaintyPlot",
        **{"uncertainty": uncertainty, "signal": "artifact", "colormap": "inferno", "width": 512},
    )
    assert result.outputs[0].shape == (1, 512 if recorded else 256, 512, 3)


def test_the_temp_folder_holds_only_the_latest_values(host, make, monkeypatch, tmp_path):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    monkeypatch.setattr(host.module("nodes.viewer"), "KEPT", 3)
    names = []
    for _ in range(5):
        (shown,) = heatmap(host, make()).ui["bayesdiff"]
        names.append(shown["values"]["filename"])
    assert {file.name for file in tmp_path.glob("bayesdiff_*")} == set(names[-3:])


def test_a_full_disk_costs_the_viewer_and_not_the_picture(host, make, monkeypatch, tmp_path):
    import errno
    from pathlib import Path

    import folder_paths

    def full(self, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", full)
    result = heatmap(host, make())
    assert torch.isfinite(result.outputs[0]).all()
    assert not result.ui
    assert not list(tmp_path.iterdir())
