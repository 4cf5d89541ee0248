"""What the viewer on a node receives: one binary with the values, and the plain images."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import ui
from torch import Tensor

from ..bayesdiff_core.recording import Recording
from ..bayesdiff_core.render.viewer_payload import encode
from ..bayesdiff_core.uncertainty import Signal

__all__ = ["KEY", "show"]

KEY = "bayesdiff"
"""Where the page finds it in a node's output. Not `images`: those the host draws itself."""


def show(
    signals: dict[str, Signal],
    artifact: str,
    images: Tensor | None,
    size: tuple[int, int],
    recording: Recording | None = None,
) -> dict[str, Any]:
    """Writes the values to the temp folder; returns what the node hands to the page."""
    name = f"bayesdiff_{uuid.uuid4().hex}.bin"
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(encode(signals, artifact, size, recording))
    pictures = [] if images is None else ui.PreviewImage(images).as_dict()["images"]
    values = {"filename": name, "subfolder": "", "type": "temp"}
    return {KEY: [{"values": values, "images": [dict(image) for image in pictures]}]}
