"""A live ComfyUI server and a small client for its HTTP and WebSocket interface."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket
from PIL import Image

from tests.support.host import base_directory
from tests.support.host_location import HostLocation

__all__ = ["ComfyServer", "Execution", "ExecutionError", "PromptRejectedError"]

ENDINGS = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}
PREVIEW_HEADER_BYTES = 8


class ExecutionError(Exception):
    """A queued prompt ended otherwise than in success; `execution` tells how."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        error = execution.error
        if error is None:
            super().__init__(f"The prompt was {execution.status}.")
        else:
            trace = "".join(error["traceback"])
            super().__init__(f"{error['node_type']}: {error['exception_message']}\n{trace}")


class PromptRejectedError(Exception):
    """The server refused a prompt before running it; `details` is its answer."""

    def __init__(self, details: dict[str, Any]) -> None:
        self.details = details
        super().__init__(json.dumps(details, indent=2))


@dataclass
class Execution:
    """One run of a prompt: its history entry and what the server said while it ran."""

    prompt_id: str
    status: str = "running"
    history: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)

    @property
    def outputs(self) -> dict[str, Any]:
        """The `ui` payload of each output node, by node id."""
        return self.history["outputs"]

    @property
    def error(self) -> dict[str, Any] | None:
        """The `execution_error` message: node_id, node_type, exception_message, traceback..."""
        return next((m["data"] for m in self.messages if m["type"] == "execution_error"), None)

    def progress(self, node_id: str) -> list[tuple[int, int]]:
        """The (value, maximum) pairs that one node's progress bar went through."""
        bars = (m["data"] for m in self.messages if m["type"] == "progress")
        return [(bar["value"], bar["max"]) for bar in bars if bar["node"] == node_id]


class ComfyServer:
    """A ComfyUI process on a free loopback port, with its own folders and this extension.

    Parameters
    ----------
    location
        The ComfyUI to start.
    folder
        An empty folder for its models, inputs, outputs, users and database.
    log
        The file that receives everything the server prints.
    """

    def __init__(self, location: HostLocation, folder: Path, log: Path) -> None:
        self.base_directory = base_directory(folder)
        self.log = log
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            *(sys.executable, str(location.path / "main.py")),
            *("--cpu", "--disable-api-nodes", "--disable-auto-launch"),
            *("--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", str(self.base_directory)),
            *("--database-url", f"sqlite:///{self.base_directory / 'comfyui.db'}"),
        ]
        with self.log.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                cwd=self.base_directory,
                # Networks this small only lose time to threads that wait for each other.
                env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self, timeout: float = 180) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._check_alive()
            try:
                self.get("/system_stats")
                return
            except urllib.error.URLError:
                time.sleep(0.2)
        raise TimeoutError(f"ComfyUI did not answer in {timeout:.0f} s.\n{self.log_tail()}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log_tail(self, lines: int = 60, start: int = 0) -> str:
        """The last lines the server printed since byte `start` of its log."""
        with self.log.open("rb") as stream:
            stream.seek(start)
            text = stream.read().decode("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def get(self, path: str, **query: str) -> Any:
        """GET a path; returns the decoded JSON."""
        return json.loads(self.get_bytes(path, **query))

    def get_bytes(self, path: str, **query: str) -> bytes:
        suffix = "?" + urllib.parse.urlencode(query) if query else ""
        with urllib.request.urlopen(self.url + path + suffix, timeout=60) as response:
            return response.read()

    def post(self, path: str, body: Any = None) -> Any:
        """POST a JSON body, or none; returns the decoded JSON answer, or None for an empty one."""
        request = urllib.request.Request(
            self.url + path,
            data=b"" if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = response.read()
        return json.loads(answer) if answer else None

    def view(self, image: dict[str, str]) -> Image.Image:
        """The picture an output names: a dict with filename, subfolder and type."""
        query = {key: image[key] for key in ("filename", "subfolder", "type")}
        return Image.open(io.BytesIO(self.get_bytes("/view", **query)))

    def set_setting(self, setting_id: str, value: Any) -> None:
        """Change one setting of the page, such as `Comfy.VueNodes.Enabled`."""
        self.post(f"/settings/{setting_id}", value)

    def queue(
        self,
        prompt: dict[str, Any],
        *,
        check: bool = True,
        timeout: float = 300,
        extra_data: dict[str, Any] | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
    ) -> Execution:
        """Queue a prompt in API form and wait until it has run.

        `on_message` sees every WebSocket message as it comes, for instance to post /interrupt at
        the first progress.

        Raises
        ------
        PromptRejectedError
            The server refused the prompt.
        ExecutionError
            It ended in an error or was interrupted, and `check` is true.
        """
        client_id = uuid.uuid4().hex
        messages = websocket.create_connection(
            f"ws://127.0.0.1:{self.port}/ws?clientId={client_id}", timeout=1
        )
        try:
            prompt_id = self._submit(prompt, client_id, extra_data)
            execution = Execution(prompt_id)
            self._follow(execution, messages, time.monotonic() + timeout, on_message)
        finally:
            messages.close()
        execution.history = self._history(prompt_id)
        if check and execution.status != "success":
            raise ExecutionError(execution)
        return execution

    def _submit(self, prompt: dict, client_id: str, extra_data: dict | None) -> str:
        body = {"prompt": prompt, "client_id": client_id, "extra_data": extra_data or {}}
        try:
            return self.post("/prompt", body)["prompt_id"]
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise PromptRejectedError(json.loads(error.read())) from None

    def _follow(
        self,
        execution: Execution,
        messages: websocket.WebSocket,
        deadline: float,
        on_message: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        while execution.status == "running":
            self._check_alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"The prompt did not end in time.\n{self.log_tail()}")
            try:
                frame = messages.recv()
            except websocket.WebSocketTimeoutException:
                continue
            if isinstance(frame, bytes):
                execution.previews.append(frame[PREVIEW_HEADER_BYTES:])
                continue
            message = json.loads(frame)
            if message["data"].get("prompt_id") != execution.prompt_id:
                continue
            execution.messages.append(message)
            execution.status = ENDINGS.get(message["type"], "running")
            if on_message is not None:
                on_message(message)

    def _history(self, prompt_id: str, timeout: float = 10) -> dict[str, Any]:
        """The history entry, which the server writes just after its last message."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.05)
        raise TimeoutError(f"The server has no history of prompt {prompt_id}.")

    def _check_alive(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise RuntimeError(f"ComfyUI ended with exit code {code}.\n{self.log_tail()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
