"""ComfyUI's page in a headless Chromium."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Playwright

    from tests.support.server import ComfyServer

__all__ = ["ComfyPage", "find_chromium", "launch_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ANIMATION_MS = 500
DEFAULT_SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False}
HARMLESS = re.compile(
    r"/favicon\.ico|/user\.css|/userdata|/templates/|/docs/|core workflow templates"
    r"|accessed before initialization"
)
"""Console errors of a fresh ComfyUI without its optional packages, or asked for its app early."""

READY = """() => window.app?.graph
    && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100"""

WATCH_EXECUTION = """() => {
    const api = window.app.api;
    window.executionEnded = new Promise((resolve) => {
        const endings = ["execution_success", "execution_error", "execution_interrupted"];
        for (const type of endings) {
            api.addEventListener(type, (event) => resolve({type, ...event.detail}), {once: true});
        }
    });
}"""


def find_chromium() -> str | None:
    """The system's Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def launch_chromium(playwright: Playwright, executable: str) -> Browser:
    return playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)


class ComfyPage:
    """One tab with ComfyUI's page in a fresh profile.

    `tab` is the Playwright page, for everything this class has no word for. `errors` collects the
    console's errors and uncaught exceptions, less those of a ComfyUI without optional packages.
    """

    def __init__(self, browser: Browser, server: ComfyServer, artifacts: Path) -> None:
        self.server = server
        self.artifacts = artifacts
        self.errors: list[str] = []
        self._context = browser.new_context(viewport={"width": 1600, "height": 1000})
        self.tab = self._context.new_page()
        self.tab.on("console", self._on_console)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, settings: dict[str, Any]) -> None:
        """Open the page with these settings, such as `Comfy.VueNodes.Enabled`."""
        for setting_id, value in {**DEFAULT_SETTINGS, **settings}.items():
            self.server.set_setting(setting_id, value)
        self.tab.goto(self.server.url)
        self.wait_until_ready()

    def reload(self) -> None:
        self.tab.reload()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        self.tab.wait_for_function(READY, timeout=60_000)

    def close(self) -> None:
        self._context.close()

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of a JavaScript expression or function of one argument."""
        return self.tab.evaluate(script, argument)

    def load_workflow(self, workflow: dict[str, Any]) -> None:
        """Load a workflow in the form the page saves."""
        self.evaluate("(workflow) => window.app.loadGraphData(workflow)", workflow)

    def load_prompt(self, prompt: dict[str, Any]) -> None:
        """Load a prompt in API form."""
        self.evaluate("(prompt) => window.app.loadApiJson(prompt, 'prompt.json')", prompt)

    def prompt(self) -> dict[str, Any]:
        """The graph on the page as a prompt in API form."""
        return self.evaluate("async () => (await window.app.graphToPrompt()).output")

    def run(self, timeout: float = 180) -> dict[str, Any]:
        """Press Run and wait; returns the closing message, with `type` execution_success.

        Raises
        ------
        AssertionError
            The prompt ended otherwise.
        """
        self.evaluate(WATCH_EXECUTION)
        self.tab.get_by_test_id("queue-button").click()
        self.tab.set_default_timeout(timeout * 1000)
        ending = self.evaluate("() => window.executionEnded")
        assert ending["type"] == "execution_success", ending
        return ending

    def fit_view(self) -> None:
        """Bring the whole graph into view."""
        self.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.tab.wait_for_timeout(ANIMATION_MS)

    def screenshot(self, name: str) -> Path:
        """Save what the tab shows among the test artifacts."""
        path = self.artifacts / f"{name}.png"
        self.tab.wait_for_timeout(ANIMATION_MS)
        self.tab.screenshot(path=path)
        return path

    def _on_console(self, message: ConsoleMessage) -> None:
        text = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not HARMLESS.search(text):
            self.errors.append(text)
