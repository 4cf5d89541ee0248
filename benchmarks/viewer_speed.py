"""Speed of the viewer: frame times and main-thread time in a headless Chromium.

    python -m benchmarks.viewer_speed [--side 2048] [--seconds 3] [--mode vue]

A live ComfyUI shows four signals of one image on UncertaintyHeatmap, on the legacy canvas and with
Vue nodes. The pointer then moves over the empty canvas (what the page takes without the viewer,
and being traced), over the picture, drags the threshold, drags the opacity, and in the full-size
dialog moves, zooms, pans and drags the threshold, one event every 1/60 s. For each:

    main     time the page's main thread worked, per event, in ms of its own CPU time
    script   the part of it the viewer's own code took
    raster   CPU time of the other threads that draw (raster workers, compositor, the display's
             process), per event; a GPU does this work elsewhere
    frame    median and 95th percentile of the time between frames, by requestAnimationFrame

CPU times leave out what other programs on the machine do, frame times do not. The last line is
JSON. Needs a ComfyUI and a Chromium, as the tests in `tests/browser` do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from bayesdiff_core.recording import Recording
from bayesdiff_core.render.upsample import upsample
from bayesdiff_core.render.viewer_payload import encode
from bayesdiff_core.uncertainty import Signal
from tests.support.browser import ComfyPage, find_chromium, launch_chromium
from tests.support.host_location import find_host
from tests.support.server import ComfyServer

from .experiment import command_line

__all__ = ["main"]

UNITS = {
    "trajectory": "latent variance",
    "contrast": "latent error",
    "posterior": "latent std",
}
FACTOR = 8
"""Pixels of the image to one of its latent."""

CATEGORIES = [
    "toplevel",
    "devtools.timeline",
    "disabled-by-default-devtools.timeline",
    "blink.user_timing",
]
EMPTY = {"x": 900, "y": 150, "width": 350, "height": 500}
FRAMES = """() => {
    window.frames_ = [];
    const tick = (time) => {
        window.frames_.push(time);
        window.ticking = requestAnimationFrame(tick);
    };
    window.ticking = requestAnimationFrame(tick);
}"""
END_FRAMES = "() => (cancelAnimationFrame(window.ticking), window.frames_)"
ADD_NODE = """(reference) => {
    const node = window.LiteGraph.createNode("UncertaintyHeatmap");
    node.pos = [0, 0];
    window.app.graph.add(node);
    window.viewer = node.widgets.find((widget) => widget.name === "viewer").viewer;
    const { ds } = window.app.canvas;
    ds.scale = 0.7;
    ds.offset = [300, 130];
    return window.viewer.show(reference);
}"""


@dataclass
class Figures:
    """What one kind of movement took; times in ms."""

    name: str
    events: int
    main: float
    script: float
    raster: float
    frame: float
    frame_95: float

    def __str__(self) -> str:
        return (
            f"{self.name:<27}{self.events:8d}{self.main:8.2f}{self.script:8.2f}"
            f"{self.raster:8.2f}{self.frame:8.1f}{self.frame_95:8.1f}"
        )


def signals(side: int, seed: int = 0) -> dict[str, Signal]:
    """Smooth maps with a few hot regions, at latent resolution."""
    generator = torch.Generator().manual_seed(seed)
    latent = side // FACTOR
    maps = {}
    for name, unit in UNITS.items():
        coarse = torch.randn(1, latent // 8, latent // 8, generator=generator)
        fine = torch.randn(1, latent, latent, generator=generator)
        smooth = upsample(coarse, (latent, latent))
        maps[name] = Signal((1.5 * smooth + 0.15 * fine).exp() * 0.01, unit)
    return maps


def recording(side: int, steps: int = 20) -> Recording:
    generator = torch.Generator().manual_seed(1)
    latent = side // FACTOR
    final = torch.randn(1, 4, latent, latent, generator=generator)
    noise = torch.randn(steps, 1, 4, latent, latent, generator=generator)
    sigmas = torch.linspace(1, 0, steps + 1)
    denoised = final + sigmas[1:, None, None, None, None] * noise
    return Recording(denoised, denoised, sigmas[:-1], sigmas, final)


def leave(server: ComfyServer, side: int) -> dict:
    """Put values and image where a run of the node puts them; returns the reference to them."""
    folder = server.base_directory / "temp"
    folder.mkdir(exist_ok=True)
    name = uuid.uuid4().hex
    content = encode(signals(side), "contrast", (side, side), recording(side))
    (folder / f"{name}.bin").write_bytes(content)
    noise = np.random.default_rng(0).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(
        folder / f"{name}.png"
    )
    at = {"subfolder": "", "type": "temp"}
    return {
        "values": {"filename": f"{name}.bin", **at},
        "images": [{"filename": f"{name}.png", **at}],
    }


def paced(count: int) -> Iterator[float]:
    """Shares of the way from 0 to 1, one every 1/60 s."""
    start = time.perf_counter()
    for index in range(count):
        time.sleep(max(0.0, start + index / 60 - time.perf_counter()))
        yield index / max(count - 1, 1)


def across(tab: Page, box: dict, count: int) -> None:
    """Moves the pointer over a box in loops, 60 times a second."""
    for share in paced(count):
        x = box["x"] + box["width"] * (0.5 + 0.35 * np.sin(2 * np.pi * 3 * share))
        y = box["y"] + box["height"] * (0.5 + 0.35 * np.sin(2 * np.pi * 2 * share + 1))
        tab.mouse.move(x, y)


def dragged(tab: Page, box: dict, count: int) -> None:
    """Drags to and fro along a box, 60 times a second."""
    y = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 0.5 * box["width"], y)
    tab.mouse.down()
    for share in paced(count):
        tab.mouse.move(box["x"] + box["width"] * (0.5 + 0.3 * np.sin(2 * np.pi * 2 * share)), y)
    tab.mouse.up()


def zoomed(tab: Page, box: dict, count: int) -> None:
    """Turns the wheel in and out over the middle of a box, 60 times a second."""
    tab.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.4 * box["height"])
    for share in paced(count):
        tab.mouse.wheel(0, -40 if share < 0.5 else 40)


class Bench:
    """One tab with the viewer in it, and the movements that are timed."""

    def __init__(self, browser: Browser, page: ComfyPage, mode: str, count: int) -> None:
        self.browser, self.page, self.tab = browser, page, page.tab
        self.mode, self.count = mode, count

    def open(self, reference: dict) -> None:
        self.page.evaluate("() => window.app.graph.clear()")
        self.page.evaluate(ADD_NODE, reference)
        self.tab.wait_for_function("() => window.viewer.state.payload !== null")
        self.tab.wait_for_timeout(2500)

    def run(self) -> Iterator[Figures]:
        node = self.tab.locator(".bayesdiff").first
        yield self.measure("empty canvas", lambda: across(self.tab, EMPTY, self.count))
        yield self.measure("move", lambda: across(self.tab, self.box(node, "stage"), self.count))
        yield self.measure(
            "threshold", lambda: dragged(self.tab, self.box(node, "histogram"), self.count)
        )
        yield self.measure(
            "opacity", lambda: dragged(self.tab, self.box(node, "slider input"), self.count)
        )
        self.page.evaluate("() => window.viewer.expand()")
        self.tab.wait_for_timeout(1500)
        dialog = self.tab.locator("dialog .bayesdiff")
        stage = self.box(dialog, "stage")
        yield self.measure("full size: move", lambda: across(self.tab, stage, self.count))
        yield self.measure("full size: zoom", lambda: zoomed(self.tab, stage, self.count))
        self.tab.mouse.wheel(0, -600)
        yield self.measure("full size: pan", lambda: dragged(self.tab, stage, self.count))
        yield self.measure(
            "full size: threshold",
            lambda: dragged(self.tab, self.box(dialog, "histogram"), self.count),
        )
        self.tab.keyboard.press("Escape")

    @staticmethod
    def box(part: Locator, name: str) -> dict:
        box = part.locator(f".bd-{name}").first.bounding_box()
        assert box is not None, name
        return box

    def measure(self, name: str, movement: Callable[[], None]) -> Figures:
        self.page.evaluate(FRAMES)
        self.browser.start_tracing(page=self.tab, categories=CATEGORIES)
        movement()
        trace = json.loads(self.browser.stop_tracing())["traceEvents"]
        frames = np.diff(self.page.evaluate(END_FRAMES))
        main, script, raster = cpu_times(trace)
        return Figures(
            f"{self.mode} {name}",
            self.count,
            main / self.count,
            script / self.count,
            raster / self.count,
            statistics.median(frames),
            float(np.quantile(frames, 0.95)),
        )


def cpu_times(trace: list[dict]) -> tuple[float, float, float]:
    """CPU time of the main thread, of the viewer's script in it, of drawing elsewhere, in ms."""
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in trace
        if event["name"] == "thread_name"
    }
    main = busiest(trace, [key for key, name in threads.items() if name == "CrRendererMain"])
    drawing = ("Compositor", "CompositorTileWorker", "VizCompositorThread", "CrGpuMain")
    elsewhere = [key for key, name in threads.items() if name.startswith(drawing)]
    tasks = tasks_by_thread(trace)
    own = [
        event
        for event in trace
        if event["name"] == "FunctionCall"
        and "tdur" in event
        and (event["pid"], event["tid"]) == main
        and "/viewer/" in event["args"].get("data", {}).get("url", "")
    ]
    raster = sum(outermost(tasks[key]) for key in elsewhere)
    return outermost(tasks[main]), outermost(own), raster


def tasks_by_thread(trace: list[dict]) -> dict[tuple[int, int], list[dict]]:
    tasks = defaultdict(list)
    for event in trace:
        if event.get("ph") == "X" and "tdur" in event:
            tasks[event["pid"], event["tid"]].append(event)
    return tasks


def busiest(trace: list[dict], candidates: list[tuple[int, int]]) -> tuple[int, int]:
    tasks = tasks_by_thread(trace)
    return max(candidates, key=lambda key: outermost(tasks[key]))


def outermost(events: list[dict]) -> float:
    """CPU time in ms of events that lie in no other one of them."""
    total, end = 0, -1
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        if event["ts"] >= end:
            total += event["tdur"]
            end = event["ts"] + event["dur"]
    return total / 1000


def main() -> None:
    parser = command_line("viewer_speed", __doc__)
    parser.add_argument("--side", type=int, default=2048, help="of the image, in pixels")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each movement")
    parser.add_argument("--mode", choices=["canvas", "vue"], help="one of the two alone")
    arguments = parser.parse_args()
    location, executable = find_host(), find_chromium()
    if location is None or executable is None:
        raise SystemExit("This needs a ComfyUI (name its folder in COMFYUI_PATH) and a Chromium.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ComfyServer(location, folder, folder / "server.log")
        try:
            server.wait_until_ready()
            with sync_playwright() as playwright:
                browser = launch_chromium(playwright, executable)
                report(browser, server, folder, arguments)
                browser.close()
        finally:
            server.stop()


def report(
    browser: Browser, server: ComfyServer, folder: Path, arguments: argparse.Namespace
) -> None:
    reference = leave(server, arguments.side)
    print(f"{arguments.side} px, 4 signals, ms of CPU time per event; frames in ms")
    heads = "".join(
        f"{head:>8}" for head in ("events", "main", "script", "raster", "frame", "95 %")
    )
    print(f"{'':<27}{heads}")
    rows = []
    for mode in ("canvas", "vue"):
        if arguments.mode not in (None, mode):
            continue
        page = ComfyPage(browser, server, folder)
        page.open({"Comfy.VueNodes.Enabled": mode == "vue"})
        bench = Bench(browser, page, mode, round(60 * arguments.seconds))
        bench.open(reference)
        for figures in bench.run():
            rows.append(vars(figures))
            print(figures, flush=True)
        page.close()
    print(json.dumps({"benchmark": "viewer", "side": arguments.side, "rows": rows}))


if __name__ == "__main__":
    main()
