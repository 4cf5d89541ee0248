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
from .report import say_on_node

__all__ = ["KEY", "show"]

KEY = "bayesdiff"
"""Where the page finds it in a node's output. Not `images`: those the host draws itself."""


KEPT = 500
"""Files of values that stay in the temp folder; the page says of older ones that they expired."""


def show(
    signals: dict[str, Signal],
    artifact: str,
    images: Tensor | None,
    size: tuple[int, int],
    recording: Recording | None = None,
) -> dict[str, Any]:
    """Writes what the viewer reads to the temp folder.

    Arguments:
        signals: By name, maps (B, *S).
        artifact: Which of them the signal `artifact` stands for.
        images: In [0, 1], shape (N, H, W, 3), one for each map or frame; None for heat alone.
        size: Height and width of the pictures, in pixels.
        recording: Of the run, for the maps at its single steps.

    Returns:
        What the node hands to the page: the file's name under KEY, and the images'; nothing where
        the folder took no file.

    Raises:
        ValueError: If there is no signal or a map is not finite.
    """
    try:
        name = _store(encode(signals, artifact, size, recording))
    except OSError as error:
        say_on_node(f"The viewer has nothing to read: the temp folder took no file ({error}).")
        return {}
    pictures = [] if images is None else ui.PreviewImage(images).as_dict()["images"]
    values = {"filename": name, "subfolder": "", "type": "temp"}
    return {KEY: [{"values": values, "images": [dict(image) for image in pictures]}]}


def _store(values: bytes) -> str:
    """Write values to the temp folder, whole or not at all, and forget the oldest of ours.

    Returns the file's name.
    """
    name = f"bayesdiff_{uuid.uuid4().hex}.bin"
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}.part"
    try:
        unfinished.write_bytes(values)
        unfinished.replace(folder / name)
    finally:
        unfinished.unlink(missing_ok=True)
    files = sorted(folder.glob("bayesdiff_*.bin"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[:-KEPT]:
        file.unlink(missing_ok=True)
    return name
