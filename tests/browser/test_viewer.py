"""The viewer on UncertaintyHeatmap, in the real page, against the values of the server.

The module's tests share one prompt on the bundled digits model, so that the server samples once
and answers the others from its cache.
"""

from __future__ import annotations

import copy
import io
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bayesdiff_core.picture import Look, draw
from bayesdiff_core.upsample import upsample
from tests.support.payload import header_of, maps_of

SIDE = 256

PROMPT: dict[str, Any] = {
    "1": {"class_type": "BayesDiffDemoModel", "inputs": {"name": "digits"}},
    "2": {
        "class_type": "BayesDiffDemoPrompt",
        "inputs": {"model": ["1", 0], "text": "3 1 4 1\n5 9 2 6\n5 3 5 8"},
    },
    "3": {"class_type": "BayesDiffDemoPrompt", "inputs": {"model": ["1", 0], "text": ""}},
    "4": {"class_type": "BayesDiffDemoLatent", "inputs": {"model": ["1", 0], "batch_size": 3}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            **{"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0]},
            **{"latent_image": ["4", 0], "seed": 1, "steps": 2, "cfg": 1.0},
            **{"sampler_name": "euler", "scheduler": "simple", "denoise": 1.0},
        },
    },
    "6": {
        "class_type": "LaplaceFit",
        "inputs": {
            **{"model": ["1", 0], "latents": ["5", 0], "conditioning": ["2", 0]},
            **{"draws": 1, "structure": "auto", "seed": 0},
        },
    },
    "7": {
        "class_type": "UncertainKSampler",
        "inputs": {
            **{"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0]},
            **{"latent_image": ["4", 0], "laplace": ["6", 0], "seed": 7, "steps": 6, "cfg": 1.5},
            **{"sampler_name": "euler", "scheduler": "simple", "denoise": 1.0},
            **{"preset": "balanced", "contrast": True, "recording_mb": 64},
        },
    },
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["1", 1]}},
    "9": {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["8", 0], "upscale_method": "nearest-exact", "scale_by": SIDE / 32},
    },
    "10": {
        "class_type": "UncertaintyHeatmap",
        "inputs": {
            **{"uncertainty": ["7", 1], "image": ["9", 0], "signal": "artifact"},
            **{"display": "overlay", "colormap": "inferno", "scale": "image", "opacity": 0.7},
            **{"threshold": 90.0, "grow": 4.0, "feather": 0.0, "minimum_area": 0, "step": 0},
            **{"threshold_by": "percentile", "threshold_value": 0.0, "color_bar": False},
            **{"scale_low": 0.0, "scale_high": 1.0},
        },
    },
    "11": {"class_type": "MaskToImage", "inputs": {"mask": ["10", 1]}},
    "12": {"class_type": "PreviewImage", "inputs": {"images": ["11", 0]}},
}

FIND = "(id) => (window.heatmap = window.app.graph.getNodeById(id))"
VIEWER = "window.heatmap.widgets.find((w) => w.name === 'viewer').viewer"

SHOW = """(scale) => {
    const { pos } = window.heatmap;
    window.app.canvas.ds.scale = scale;
    window.app.canvas.ds.offset = [140 / scale - pos[0], 90 / scale - pos[1]];
    window.app.canvas.setDirty(true, true);
}"""

APART = """() => {
    window.app.graph._nodes.forEach((node, index) => (node.pos = [600 * index, 0]));
    return JSON.stringify(window.app.graph.serialize());
}"""


class Viewer:
    """The viewer of one node on the page, and what the server knows of the same run."""

    def __init__(self, page, node_id=10):
        self.page, self.tab, self.node_id = page, page.tab, node_id
        page.evaluate(FIND, node_id)
        self.root = self.tab.locator(".bayesdiff").first

    def show(self, scale=0.6):
        """Brings the node to the middle of the tab."""
        self.page.evaluate(SHOW, scale)
        self.page.tab.wait_for_timeout(700)

    def state(self, expression):
        return self.page.evaluate(f"() => {VIEWER}.state.{expression}")

    def widget(self, name):
        return self.page.evaluate(
            "(name) => window.heatmap.widgets.find((w) => w.name === name).value", name
        )

    def wait_for_content(self):
        self.page.tab.wait_for_function(f"() => {VIEWER}.state.payload !== null")
        self.page.tab.wait_for_timeout(300)

    @property
    def output(self):
        return self.page.evaluate("(id) => window.app.nodeOutputs[id]", str(self.node_id))

    def values(self):
        """The header and the maps by signal, as the server wrote them."""
        (payload,) = self.output["bayesdiff"]
        content = self.page.server.get_bytes("/view", **payload["values"])
        header = header_of(content)
        return header, {layer["name"]: maps_of(content, layer) for layer in header["signals"]}

    def images(self):
        (payload,) = self.output["bayesdiff"]
        return [self.page.server.view(image).convert("RGB") for image in payload["images"]]

    def point_at(self, x, y):
        """Moves the pointer to a pixel of the image."""
        box = self.root.locator(".bd-stage").bounding_box()
        scale = min(box["width"], box["height"]) / SIDE
        left = box["x"] + (box["width"] - SIDE * scale) / 2
        top = box["y"] + (box["height"] - SIDE * scale) / 2
        self.tab.mouse.move(left + (x + 0.5) * scale, top + (y + 0.5) * scale)
        self.tab.wait_for_timeout(100)

    def readout(self):
        """The rows of the read-out: name -> (value, percentile)."""
        rows = {}
        for row in self.root.locator(".bd-row").all():
            value, place = row.locator(".bd-number").all_inner_texts()
            name = row.locator(".bd-name").inner_text().lower()
            number = float(value.replace("−", "-")) if value else None
            rows[name] = (number, float(place[1:]) if place else None)
        return rows

    def mask_of_the_run(self):
        """The share of each image that the node's mask covers."""
        images = self.page.evaluate("() => window.app.nodeOutputs['12'].images")
        return [np.asarray(self.page.server.view(i).convert("L")).mean() / 255 for i in images]


@pytest.fixture
def run(open_page):
    """Opens the page, runs the prompt and brings the viewer into view."""

    def run_prompt(vue=False, settings=None, changes=None):
        page = open_page({"Comfy.VueNodes.Enabled": vue, **(settings or {})})
        prompt = copy.deepcopy(PROMPT)
        prompt["10"]["inputs"].update(changes or {})
        return run_in(page, prompt)

    return run_prompt


def run_in(page, prompt):
    """Runs a prompt as a workflow whose nodes lie apart; returns the viewer, in view."""
    page.load_prompt(prompt)
    page.load_workflow(json.loads(page.evaluate(APART)))
    page.run()
    page.tab.set_default_timeout(15_000)
    viewer = Viewer(page)
    viewer.wait_for_content()
    viewer.show()
    return viewer


both = pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue"])


@both
def test_it_reads_the_values_of_the_server(run, vue):
    viewer = run(vue)
    header, maps = viewer.values()
    image = viewer.state("image")
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
    difference = np.abs(np.asarray(shown, float) - np.asarray(known, float)).mean(axis=-1) / 255
    assert difference.mean() < 0.02
    assert np.quantile(difference, 0.95) < 0.08


def stage_pixels(viewer):
    """The image's part of the stage as the page shows it."""
    box = viewer.root.locator(".bd-stage").bounding_box()
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    content = viewer.tab.screenshot(clip={"x": left, "y": top, "width": side, "height": side})
    return Image.open(io.BytesIO(content)).convert("RGB")


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
    assert after[image] == pytest.approx(share, abs=0.02)


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
    viewer.tab.mouse.click(1200, 700)
    viewer.tab.wait_for_timeout(1500)
    viewer.page.reload()
    again = Viewer(viewer.page)
    again.wait_for_content()
    again.show()
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
    viewer.root.locator(".bd-histogram").focus()
    viewer.tab.keyboard.press("ArrowLeft")
    assert viewer.widget("threshold") == 89.5
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


def test_a_node_takes_its_viewer_with_it(run):
    viewer = run()
    viewer.page.evaluate(
        """() => {
            const copy = window.LiteGraph.createNode("UncertaintyHeatmap");
            window.app.graph.add(copy);
            window.other = copy.widgets.find((w) => w.name === "viewer").viewer;
        }"""
    )
    viewer.tab.wait_for_timeout(300)
    assert viewer.page.evaluate("() => window.other.state.payload") is None
    viewer.page.evaluate(f"() => {{ window.gone = {VIEWER}; window.app.graph.remove(heatmap); }}")
    assert viewer.page.evaluate("() => window.gone.element.isConnected") is False
    viewer.page.evaluate("() => window.gone.state.refresh()")


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


def test_a_large_image_answers_the_pointer_within_a_frame(open_page):
    page = open_page({})
    prompt = copy.deepcopy(PROMPT)
    scale = {"upscale_method": "nearest-exact", "width": 2048, "height": 2048, "crop": "disabled"}
    prompt["9"] = {"class_type": "ImageScale", "inputs": {"image": ["8", 0], **scale}}
    viewer = run_in(page, prompt)
    assert viewer.state("payload.width") == 2048
    taken = page.evaluate(
        """() => {
            const stage = document.querySelector(".bd-stage");
            const box = stage.getBoundingClientRect();
            const times = [];
            for (let i = 0; i < 200; i++) {
                const place = { clientX: box.x + box.width * (0.3 + i / 500), bubbles: true,
                    clientY: box.y + box.height / 2 };
                const start = performance.now();
                stage.dispatchEvent(new PointerEvent("pointermove", place));
                times.push(performance.now() - start);
            }
            return times.sort((a, b) => a - b);
        }"""
    )
    assert taken[len(taken) // 2] < 4
    masks = page.evaluate(
        f"""() => {{
            const {{ state }} = {VIEWER};
            const times = [];
            for (let i = 0; i < 20; i++) {{
                const start = performance.now();
                state.moveThresholdTo(80 + i);
                state.outline;
                times.push(performance.now() - start);
            }}
            return times.sort((a, b) => a - b);
        }}"""
    )
    assert masks[len(masks) // 2] < 16
