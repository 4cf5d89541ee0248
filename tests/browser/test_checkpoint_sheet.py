"""The page on which people mark malformed images, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from benchmarks.checkpoint.labelling_page import write_labelling_page
from benchmarks.checkpoint.runs import Image
from benchmarks.checkpoint.truth import Verdict, read_labels

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

WIDTH, HEIGHT = 320, 160


@pytest.fixture
def images() -> list[Image]:
    return [Image(f"images/{i:04}-0.png", i, 0, 1, f"prompt {i}", {}) for i in range(4)]


@pytest.fixture
def sheet(tmp_path: Path, images: list[Image]) -> Path:
    (tmp_path / "images").mkdir()
    for image in images:
        picture = np.full((HEIGHT, WIDTH, 3), 40 * image.run, np.uint8)
        cv2.imwrite(str(tmp_path / image.file), picture)
    write_labelling_page(tmp_path / "sheet.html", images, "test")
    return tmp_path / "sheet.html"


@pytest.fixture
def tab(browser: Browser, sheet: Path) -> Page:
    """The page, which must not log an error."""
    context = browser.new_context()
    tab = context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    tab.goto(sheet.as_uri())
    yield tab
    context.close()
    assert errors == []


def button(tab: Page, image: Image) -> Locator:
    found = tab.locator(f'[data-file="{image.file}"]')
    found.scroll_into_view_if_needed()
    found.locator("img").evaluate("(picture) => picture.decode()")
    return found


def drag(tab: Page, place: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Between two points, in fractions of the picture."""
    area = place.locator("img").bounding_box()
    assert area is not None
    points = [
        (area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, end)
    ]
    tab.mouse.move(*points[0])
    tab.mouse.down()
    tab.mouse.move(*points[1], steps=5)
    tab.mouse.up()


def saved(tab: Page, path: Path) -> Path:
    with tab.expect_download() as download:
        tab.click("#save")
    assert download.value.suggested_filename == "labels.csv"
    download.value.save_as(path)
    return path


def test_clicks_and_drags_arrive_in_the_table(tab, images, tmp_path):
    button(tab, images[1]).click()
    button(tab, images[2]).click()
    button(tab, images[2]).click()
    drag(tab, button(tab, images[3]), (0.6, 0.75), (0.2, 0.25))
    assert tab.inner_text("#count") == "2 of 4 marked"
    labels = read_labels(saved(tab, tmp_path / "labels.csv"), images)
    marked = {image.file: labels.pop(image.file) for image in (images[1], images[3])}
    assert labels == {images[0].file: Verdict(False), images[2].file: Verdict(False)}
    assert marked[images[1].file] == Verdict(True)
    (box,) = marked[images[3].file].boxes
    # The mouse moves by whole pixels of a picture some 300 pixels wide.
    assert box == pytest.approx((0.2, 0.25, 0.6, 0.75), abs=0.02)


def test_a_click_takes_boxes_back(tab, images, tmp_path):
    place = button(tab, images[0])
    drag(tab, place, (0.1, 0.1), (0.5, 0.5))
    assert place.locator(".box").count() == 1
    place.click()
    assert place.locator(".box").count() == 0
    labels = read_labels(saved(tab, tmp_path / "labels.csv"), images)
    assert labels[images[0].file] == Verdict(False)


def test_marks_outlive_the_page_and_the_keyboard_sets_them(tab, images):
    button(tab, images[2]).focus()
    tab.keyboard.press("Space")
    tab.reload()
    assert button(tab, images[2]).get_attribute("aria-pressed") == "true"
    assert tab.inner_text("#count") == "1 of 4 marked"
