"""The viewer on the page, and a prompt on the bundled models that fills it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from tests.support.payload import header_of, maps_of

__all__ = ["FIND", "PROMPT", "SIDE", "VIEWER", "Viewer", "run_in", "stage_pixels"]

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

FIND = "(id) => (window.heatmap = window.app.canvas.graph.getNodeById(id))"
VIEWER = "window.heatmap.widgets.find((w) => w.name === 'viewer').viewer"

SHOW = """(scale) => {
    const { pos } = window.heatmap;
    window.app.canvas.ds.scale = scale;
    window.app.canvas.ds.offset = [140 / scale - pos[0], 90 / scale - pos[1]];
    window.app.canvas.setDirty(true, true);
}"""

APART = """() => {
    window.app.graph._nodes.forEach((node, index) => (node.pos = [600 * index, 0]));
    // Left alone, the page draws new seeds after every run: the next one would show other images.
    const controls = window.app.graph._nodes.flatMap((node) => node.widgets ?? [])
        .filter((widget) => widget.name === "control_after_generate");
    controls.forEach((widget) => (widget.value = "fixed"));
    return JSON.stringify(window.app.graph.serialize());
}"""

CORNER = """() => {
    const { pos, size } = window.heatmap;
    const { scale, offset } = window.app.canvas.ds;
    const box = window.app.canvas.canvas.getBoundingClientRect();
    const node = document.querySelector(`[data-node-id="${window.heatmap.id}"]`);
    const corner = node?.querySelector(".cursor-se-resize").getBoundingClientRect();
    return corner
        ? [corner.x + corner.width / 2, corner.y + corner.height / 2, scale]
        : [0, 1].map((i) => box[["x", "y"][i]] + (pos[i] + size[i] - 5 + offset[i]) * scale)
            .concat(scale);
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

    def stage_height(self):
        """The height of the picture's place in the node's own pixels."""
        return self.page.evaluate("() => document.querySelector('.bd-stage').clientHeight")

    def drag_corner(self, down):
        """Makes the node higher by its lower right corner, by pixels of its own."""
        x, y, scale = self.page.evaluate(CORNER)
        self.tab.mouse.move(x, y)
        self.tab.mouse.down()
        self.tab.mouse.move(x, y + down * scale, steps=5)
        self.tab.mouse.up()
        self.tab.wait_for_timeout(500)

    def mask_of_the_run(self):
        """The share of each image that the node's mask covers."""
        images = self.page.evaluate("() => window.app.nodeOutputs['12'].images")
        return [np.asarray(self.page.server.view(i).convert("L")).mean() / 255 for i in images]


def run_in(page, prompt):
    """Runs a prompt as a workflow, nodes apart and seeds fixed; returns the viewer, in view."""
    page.load_prompt(prompt)
    page.load_workflow(json.loads(page.evaluate(APART)))
    page.run()
    page.tab.set_default_timeout(15_000)
    viewer = Viewer(page)
    viewer.wait_for_content()
    viewer.show()
    return viewer


def stage_pixels(viewer):
    """The image's part of the stage as the page shows it."""
    box = viewer.root.locator(".bd-stage").bounding_box()
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    content = viewer.tab.screenshot(clip={"x": left, "y": top, "width": side, "height": side})
    return Image.open(io.BytesIO(content)).convert("RGB")
