"""The viewer on UncertaintyHeatmap, in the real page, against the values of the server.

The tests of the viewer share one prompt on the bundled digits model, so that the server samples
once and answers the others from its cache.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from bayesdiff_core.render.pictures import Look, draw
from bayesdiff_core.render.upsample import upsample
from tests.support.viewer import SIDE, VIEWER, Viewer, stage_pixels

both = pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue"])


COUNT_DRAWING = """() => {
    window.drawn = 0;
    for (const name of ["drawImage", "putImageData", "stroke", "clearRect"]) {
        const original = CanvasRenderingContext2D.prototype[name];
        CanvasRenderingContext2D.prototype[name] = function (...args) {
            if (this.canvas.closest(".bayesdiff")) window.drawn++;
            return original.apply(this, args);
        };
    }
}"""


@both
def test_it_reads_the_values_of_the_server(run, vue):
    viewer = run(vue)
    header, maps = viewer.values()
    image = viewer.state("image")
    viewer.point_at(100, 100)
    viewer.page.evaluate(COUNT_DRAWING)
    for x, y in [(40, 60), (128, 128), (200, 30)]:
        viewer.point_at(x, y)
        pixel = re.search(r"(\d+), (\d+)", viewer.root.locator(".bd-note").inner_text())
        x, y = int(pixel[1]), int(pixel[2])
        for name, (shown, place) in viewer.readout().items():
            known = torch.from_numpy(maps[name][image : image + 1]).float()
            value = float(upsample(known, (SIDE, SIDE))[0, y, x])
            assert shown == pytest.approx(value, rel=0.051 if abs(value) < 1e-3 else 6e-3)
            assert place == pytest.approx(100 * (maps[name][image] < value).mean(), abs=0.5)
    assert header["batch"] == 3
    assert viewer.page.evaluate("() => window.drawn") == 0, "the pointer alone draws nothing"


def blocks(difference, side=3):
    """The size of a difference (H, W, 3) in [0, 255], averaged over squares of pixels first."""
    height, width = (length // side * side for length in difference.shape[:2])
    squares = difference[:height, :width].reshape(height // side, side, width // side, side, 3)
    return np.abs(squares.mean(axis=(1, 3))).mean(axis=-1) / 255


@both
def test_its_pixels_are_image_and_heat(run, vue):
    viewer = run(vue)
    header, maps = viewer.values()
    image = viewer.state("image")
    known = torch.from_numpy(maps[header["artifact"]][image : image + 1]).float()
    picture = torch.from_numpy(np.array(viewer.images()[image])).float()[None] / 255
    expected = draw(
        known, upsample(known, (SIDE, SIDE)), torch.zeros(1, SIDE, SIDE), picture, Look()
    )[0]
    viewer.page.evaluate("() => { window.heatmap.widgets.find(w => w.name === 'threshold').value"
                         " = 100; }")  # fmt: skip
    viewer.page.evaluate(f"() => {VIEWER}.state.refresh()")
    viewer.tab.mouse.move(5, 500)
    viewer.tab.wait_for_timeout(300)
    shown = stage_pixels(viewer)
    known = Image.fromarray((255 * expected).round().byte().numpy())
    known = known.resize(shown.size, Image.Resampling.BOX)
    # The stage may begin between two pixels of the screen, which shows at the picture's steps.
    known = np.asarray(known, float)
    beside = (np.roll(known, (y, x), (0, 1)) for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)))
    differences = (blocks(np.asarray(shown, float) - other) for other in beside)
    difference = min(differences, key=np.mean)
    assert difference.mean() < 0.02
    assert np.quantile(difference, 0.95) < 0.08


@both
def test_a_dragged_threshold_is_the_mask_of_the_next_run(run, vue):
    viewer = run(vue)
    before = viewer.mask_of_the_run()
    box = viewer.root.locator(".bd-histogram").bounding_box()
    y = box["y"] + box["height"] / 2
    start = box["x"] + 0.9 * box["width"]
    viewer.tab.mouse.move(start, y)
    viewer.tab.mouse.down()
    for step in range(1, 6):
        viewer.tab.mouse.move(start - step * 0.05 * box["width"], y)
    viewer.tab.mouse.up()
    viewer.tab.wait_for_timeout(300)
    threshold = viewer.widget("threshold")
    image, share = viewer.state("image"), viewer.state("maskedShare")
    assert threshold != 90.0
    assert viewer.page.prompt()["10"]["inputs"]["threshold"] == threshold
    viewer.page.run()
    viewer.tab.wait_for_timeout(500)
    after = viewer.mask_of_the_run()
    assert after != before
    # The page grows the mask on the map's own grid, which rounds its outline.
    assert after[image] == pytest.approx(share, abs=0.03)


@both
def test_a_signal_is_switched_without_another_run(run, vue):
    viewer = run(vue)
    outputs = viewer.output
    viewer.root.get_by_role("button", name="Trajectory").click()
    viewer.tab.wait_for_timeout(200)
    assert viewer.state("layer.name") == "trajectory"
    assert viewer.widget("signal") == "trajectory"
    assert viewer.output == outputs
    header, maps = viewer.values()
    scores = viewer.root.locator(".bd-tile .bd-number").all_inner_texts()
    assert [float(score) for score in scores] == sorted(float(score) for score in scores)
    assert len(scores) == header["batch"]


@both
def test_a_reload_keeps_what_was_seen(run, vue):
    viewer = run(vue)
    viewer.root.locator(".bd-tile").last.click()
    viewer.root.get_by_role("button", name="Posterior").click()
    image = viewer.state("image")
    viewer.show(0.4)
    before = viewer.stage_height()
    viewer.drag_corner(300)
    height = viewer.stage_height()
    assert height == pytest.approx(before + 300, abs=40), "the picture takes what the node gets"
    viewer.drag_corner(-200)
    height = viewer.stage_height()
    assert height == pytest.approx(before + 100, abs=40), "and gives it back"
    viewer.tab.mouse.click(1200, 700)
    viewer.tab.wait_for_timeout(1500)
    viewer.page.reload()
    again = Viewer(viewer.page)
    again.wait_for_content()
    again.show()
    assert again.stage_height() == pytest.approx(height, abs=40)
    assert again.state("image") == image
    assert again.state("layer.name") == "posterior"
    assert again.widget("signal") == "posterior"
    viewer.page.run()
    assert again.state("payload.batch") == 3


def test_the_step_scrubber_shows_what_was_undecided(run):
    viewer = run()
    scores = []
    slider = viewer.root.get_by_label("Step", exact=True)
    for step in range(6):
        slider.fill(str(step))
        viewer.tab.wait_for_timeout(100)
        assert viewer.widget("step") == step + 1
        scores.append(viewer.state("layer.scores[0]"))
    assert scores[0] > scores[3] > scores[5]
    assert scores[5] == pytest.approx(0, abs=1e-6)
    slider.fill("2")
    viewer.page.screenshot("viewer-step")
    slider.fill("6")
    assert viewer.widget("step") == 0


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_full_size_zooms_and_closes(run, palette):
    viewer = run(settings={"Comfy.ColorPalette": palette})
    viewer.page.screenshot(f"viewer-node-{palette}")
    viewer.root.locator(".bd-stage").focus()
    viewer.tab.keyboard.press("f")
    dialog = viewer.tab.locator("dialog.bayesdiff-dialog")
    stage = dialog.locator(".bd-stage")
    viewer.tab.wait_for_timeout(400)
    box = stage.bounding_box()
    viewer.tab.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.4)
    viewer.page.screenshot(f"viewer-full-{palette}")
    whole = dialog.locator(".bd-note").inner_text()
    viewer.tab.mouse.wheel(0, -600)
    viewer.tab.wait_for_timeout(200)
    assert dialog.locator(".bd-note").inner_text() == whole, "the pixel under the pointer stays"
    viewer.page.screenshot(f"viewer-zoomed-{palette}")
    viewer.tab.keyboard.press("0")
    viewer.tab.keyboard.press("Escape")
    viewer.tab.wait_for_timeout(200)
    assert dialog.count() == 0
    assert "bd-stage" in viewer.page.evaluate("() => document.activeElement.className")


def test_every_part_is_reached_by_keyboard(run):
    viewer = run()
    stage = viewer.root.locator(".bd-stage")
    stage.focus()
    viewer.tab.keyboard.down("h")
    assert viewer.state("alone")
    viewer.tab.keyboard.up("h")
    assert not viewer.state("alone")
    order = viewer.state("order")
    viewer.page.evaluate(f"(image) => {VIEWER}.state.select(image)", order[0])
    viewer.tab.keyboard.press("ArrowRight")
    assert viewer.state("image") == order[1]
    viewer.tab.keyboard.press("Shift+ArrowRight")
    assert viewer.state("probe.u") > 0.5
    viewer.tab.wait_for_timeout(100)
    spoken = viewer.root.locator(".bd-spoken").inner_text()
    assert "pixel" in spoken and "Posterior" in spoken, "a screen reader hears the values"
    viewer.root.locator(".bd-histogram").focus()
    viewer.tab.keyboard.press("ArrowLeft")
    assert viewer.widget("threshold") == 89.5
    viewer.tab.keyboard.press("PageDown")
    assert viewer.widget("threshold") == 84.5
    viewer.tab.keyboard.press("End")
    assert viewer.widget("threshold") == 100
    focused = []
    viewer.root.get_by_role("button", name="Artifact").focus()
    for _ in range(14):
        focused.append(viewer.page.evaluate("() => document.activeElement.className"))
        viewer.tab.keyboard.press("Tab")
    seen = " ".join(focused)
    assert all(part in seen for part in ["bd-choice", "bd-icon", "bd-stage", "bd-histogram"])


def test_no_text_is_too_small_and_every_control_has_a_tooltip(run):
    viewer = run()
    sizes = viewer.page.evaluate(
        """() => [...document.querySelectorAll(".bayesdiff *")]
            .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
            .map((e) => parseFloat(getComputedStyle(e).fontSize))"""
    )
    assert min(sizes) >= 11
    for control in viewer.root.locator("button, .bd-stage, .bd-histogram").all():
        assert control.get_attribute("title")


def test_a_new_node_has_the_settings_defaults(open_page):
    page = open_page({"BayesDiff.Colormap": "viridis", "BayesDiff.Opacity": 0.5})
    values = page.evaluate(
        """() => {
            const node = window.LiteGraph.createNode("UncertaintyHeatmap");
            window.app.graph.add(node);
            return Object.fromEntries(node.widgets.map((w) => [w.name, w.value]));
        }"""
    )
    page.server.set_setting("BayesDiff.Colormap", "inferno")
    page.server.set_setting("BayesDiff.Opacity", 0.7)
    assert (values["colormap"], values["opacity"]) == ("viridis", 0.5)
