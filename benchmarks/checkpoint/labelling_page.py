"""The page on which people mark the malformed images, blind: no scores, no order, no heat."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from .runs import Image

__all__ = ["write_labelling_page"]

TEMPLATE = Path(__file__).with_name("labelling_page.html")


def write_labelling_page(path: Path, images: Sequence[Image], key: str, seed: int = 0) -> None:
    """Write the page beside the folder of images it shows, in random order.

    Marks are kept in the browser under `key` until they are saved as labels.csv.
    """
    shown = [{"file": image.file, "prompt": image.prompt} for image in images]
    random.Random(seed).shuffle(shown)
    # A prompt that holds "</script>" must not end the page's script.
    data = json.dumps({"key": key, "images": shown}).replace("<", "\\u003c")
    page = TEMPLATE.read_text(encoding="utf-8").replace("/* DATA */ null", data)
    path.write_text(page, encoding="utf-8")
