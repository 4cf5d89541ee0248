"""What the viewer reads is what the core knows, to the precision the format promises."""

import numpy as np
import pytest
import torch

from bayesdiff_core.map_checks import percentiles
from bayesdiff_core.recording import Recording
from bayesdiff_core.render.heatmap import colorize
from bayesdiff_core.render.viewer_payload import encode, recorded_steps
from bayesdiff_core.step_maps import step_map
from bayesdiff_core.uncertainty import Signal, Uncertainty
from tests.support.payload import colors_of, header_of, histogram_of, maps_of, percentiles_of

UNITS = {"contrast": "latent error", "posterior": "latent std"}


def signal(shape, offset=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Signal(offset + torch.randn(shape, generator=generator), UNITS["contrast"])


def recording(evaluations, batch, size):
    generator = torch.Generator().manual_seed(1)
    shape = (evaluations, batch, 4, *size)
    denoised = torch.randn(shape, generator=generator)
    sigmas = torch.linspace(1, 0, evaluations + 1)
    return Recording(denoised, denoised, sigmas[:-1], sigmas, denoised[-1])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_values_are_exact_to_half_a_step(scale):
    known = signal((3, 24, 40), offset=-0.5)
    known = Signal(known.map * scale, known.unit)
    content = encode({"contrast": known}, "contrast", (192, 320))
    layer = header_of(content)["signals"][0]
    ranges = known.map.amax(dim=(1, 2)) - known.map.amin(dim=(1, 2))
    error = np.abs(maps_of(content, layer) - known.map.numpy()).max(axis=(1, 2))
    assert (error <= 0.501 * ranges.numpy() / 65535).all()


def test_constant_maps_are_exact():
    known = Signal(torch.full((2, 8, 8), 0.3), "latent std")
    content = encode({"posterior": known}, "posterior", (8, 8))
    header = header_of(content)
    assert np.array_equal(maps_of(content, header["signals"][0]), known.map.double().numpy())


def test_header_says_what_the_signals_are():
    signals = {name: signal((2, 8, 12), seed=len(name)) for name in ("trajectory", "contrast")}
    header = header_of(encode(signals, "contrast", (64, 96)))
    assert (header["batch"], header["height"], header["width"]) == (2, 64, 96)
    assert header["artifact"] == "contrast"
    assert [layer["name"] for layer in header["signals"]] == ["trajectory", "contrast"]
    for layer, known in zip(header["signals"], signals.values(), strict=True):
        assert layer["unit"] == known.unit
        assert layer["scores"] == pytest.approx(known.scores.tolist())


def test_percentiles_and_histogram_are_those_of_the_map():
    known = signal((2, 32, 32))
    content = encode({"contrast": known}, "contrast", (32, 32))
    layer = header_of(content)["signals"][0]
    table = percentiles_of(content, layer)
    assert table[:, 900] == pytest.approx(percentiles(known.map, (90.0,))[:, 0].numpy())
    assert (np.diff(table) >= 0).all()
    assert (histogram_of(content, layer).sum(axis=1) == 32 * 32).all()


def test_large_maps_are_averaged_down_and_keep_their_scores():
    known = signal((1, 1024, 768))
    layer = header_of(encode({"contrast": known}, "contrast", (1024, 768)))["signals"][0]
    assert (layer["height"], layer["width"]) == (512, 384)
    assert layer["scores"] == pytest.approx(known.scores.tolist())


def test_frames_of_a_video_follow_one_another():
    known = signal((2, 3, 8, 8))
    content = encode({"contrast": known}, "contrast", (64, 64))
    maps = maps_of(content, header_of(content)["signals"][0])
    assert maps[4] == pytest.approx(known.map[1, 1].double().numpy(), abs=1e-4)


def test_steps_are_those_of_the_recording():
    known = recording(12, 2, (16, 16))
    content = encode({"contrast": signal((2, 16, 16))}, "contrast", (16, 16), known)
    header = header_of(content)
    assert header["evaluations"] == 12
    assert [layer["name"] for layer in header["steps"]] == [str(k) for k in range(1, 13)]
    assert maps_of(content, header["steps"][4]) == pytest.approx(
        step_map(known, 5).double().numpy(), abs=1e-4
    )
    assert maps_of(content, header["steps"][-1]).max() == 0


def test_steps_of_large_batches_are_thinned_out_but_keep_both_ends():
    steps = recorded_steps(recording(50, 1, (4, 4)), 16)
    assert len(steps) == 16
    assert steps[0] == 1
    assert steps[-1] == 50


def test_colours_are_those_of_the_heatmap():
    content = encode({"contrast": signal((1, 4, 4))}, "contrast", (4, 4))
    for name, offset in header_of(content)["colormaps"].items():
        ramp = torch.linspace(0, 1, 256)[None, None]
        known = colorize(ramp, torch.tensor([[0.0, 1.0]]), name)[0, 0].numpy()
        assert np.abs(colors_of(content, offset) / 255 - known).max() < 1e-5


def test_a_map_that_is_not_finite_is_refused():
    broken = Signal(torch.full((1, 4, 4), float("nan")), "latent std")
    with pytest.raises(ValueError, match="NaN"):
        encode({"posterior": broken}, "posterior", (4, 4))


def test_a_step_outside_of_the_run_is_refused():
    with pytest.raises(ValueError, match="steps 1 to 3"):
        step_map(recording(3, 1, (4, 4)), 4)


def test_it_takes_what_a_run_returns():
    run = Uncertainty({"trajectory": signal((2, 8, 8))}, recording(4, 2, (8, 8)))
    content = encode(run.signals, run.artifact_source, (64, 64), run.recording)
    assert header_of(content)["artifact"] == "trajectory"
