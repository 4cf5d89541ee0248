"""Where the host, ComfyUI, lies on this machine, if it does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "HostLocation", "HostNotFoundError", "find_host"]

ROOT = Path(__file__).absolute().parents[2]
"""The repository: the folder ComfyUI loads as an extension."""


class HostNotFoundError(Exception):
    """COMFYUI_PATH names a folder that holds no ComfyUI."""


@dataclass(frozen=True)
class HostLocation:
    path: Path
    version: str

    def __str__(self) -> str:
        return f"ComfyUI {self.version} at {self.path}"


def find_host() -> HostLocation | None:
    """The ComfyUI to test in, or None.

    In this order: the folder named by COMFYUI_PATH, the ComfyUI whose `custom_nodes` folder holds
    this repository, `~/comfy/ComfyUI` (where comfy-cli installs).

    Raises
    ------
    HostNotFoundError
        COMFYUI_PATH is set, but there is no ComfyUI.
    """
    named = os.environ.get("COMFYUI_PATH")
    if named:
        location = _location(Path(named).expanduser())
        if location is None:
            raise HostNotFoundError(
                f"COMFYUI_PATH is {named}, but that folder holds no ComfyUI (no main.py and "
                "comfyui_version.py). Name the folder ComfyUI was cloned into, or unset it."
            )
        return location
    return next(filter(None, map(_location, _usual_folders())), None)


def _usual_folders() -> Iterator[Path]:
    for root in (ROOT, ROOT.resolve()):
        if root.parent.name == "custom_nodes":
            yield root.parents[1]
    yield Path("~/comfy/ComfyUI").expanduser()


def _location(folder: Path) -> HostLocation | None:
    version_file = folder / "comfyui_version.py"
    if not version_file.is_file() or not (folder / "main.py").is_file():
        return None
    match = re.search(r'__version__ = "(.+)"', version_file.read_text(encoding="utf-8"))
    return HostLocation(folder.absolute(), match[1] if match else "of unknown version")
