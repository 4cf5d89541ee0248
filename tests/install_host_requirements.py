"""Install what the ComfyUI found on this machine needs, next to what the tests need.

Run as `python -m tests.install_host_requirements`. ComfyUI itself is never fetched. Installs
nothing when the same requirements were installed before.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.host_location import HostLocation, HostNotFoundError, find_host

LEFT_OUT = {"torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs"}
"""Large packages that no test uses; ComfyUI starts without them."""

IMPLIED = ["requests"]
"""Imported by ComfyUI, not named in its requirements."""

STAMP = Path(sys.prefix) / ".host-requirements-installed"


def main() -> int:
    try:
        location = find_host()
    except HostNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    if location is None:
        print("host: none found, so its requirements are not installed")
        return 0
    requirements = "\n".join(required_packages(location))
    digest = hashlib.sha256(requirements.encode()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == digest:
        return 0
    print(f"host: installing the requirements of {location}", flush=True)
    install(requirements)
    STAMP.write_text(digest)
    return 0


def required_packages(location: HostLocation) -> list[str]:
    """The requirement lines of this ComfyUI that its tests need."""
    text = (location.path / "requirements.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines()]
    wanted = [
        line
        for line in lines
        if line and not line.startswith("#") and _package_name(line) not in LEFT_OUT
    ]
    return wanted + IMPLIED


def install(requirements: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(requirements, encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--requirement", str(file)]
        subprocess.run(command, check=True)


def _package_name(line: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower().replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
