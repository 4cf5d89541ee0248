"""Fixtures: the real host, imported (`host`), live (`server`) and in a browser (`page`).

`tests/core` runs anywhere. Tests of `tests/host` and `tests/browser` are left out where no
ComfyUI is found; how it is found is told in `tests/support/host_location.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import ComfyPage, find_chromium, launch_chromium
from tests.support.host_location import ROOT, HostLocation, HostNotFoundError, find_host

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.host import Host
    from tests.support.server import ComfyServer

LOCATION = pytest.StashKey[HostLocation | None]()
LEFT_OUT = pytest.StashKey[dict[str, int]]()
SERVER = pytest.StashKey["ComfyServer"]()
LOG_START = pytest.StashKey[int]()

NEEDS_BROWSER = {"browser", "open_page", "page"}
NEEDS_SERVER = {"server"} | NEEDS_BROWSER
NEEDS_HOST = {"host", "host_location"} | NEEDS_SERVER


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[LOCATION] = find_host()
    except HostNotFoundError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[LEFT_OUT] = {"host": 0, "browser": 0}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by what they need, and leave out those whose needs this machine cannot meet."""
    left_out = config.stash[LEFT_OUT]
    has_host = config.stash[LOCATION] is not None
    has_browser = find_chromium() is not None
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        needs_host = bool(fixtures & NEEDS_HOST) or folder in ("host", "browser")
        needs_browser = bool(fixtures & NEEDS_BROWSER)
        if needs_host:
            item.add_marker("host")
        if fixtures & NEEDS_SERVER:
            item.add_marker("server")
        if needs_browser:
            item.add_marker("browser")
        if needs_host and not has_host:
            item.add_marker(pytest.mark.skip(reason="no ComfyUI on this machine"))
            left_out["host"] += 1
        elif needs_browser and not has_browser:
            item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))
            left_out["browser"] += 1


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    left_out = config.stash[LEFT_OUT]
    location = config.stash[LOCATION]
    if location is None:
        terminalreporter.line(f"host: none, {left_out['host']} tests left out")
    else:
        terminalreporter.line(f"host: {location}")
    if left_out["browser"]:
        terminalreporter.line(f"browser: none, {left_out['browser']} tests left out")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    server = item.config.stash.get(SERVER, None)
    item.stash[LOG_START] = server.log.stat().st_size if server else 0
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the server printed during a test that failed."""
    report = yield
    server = item.config.stash.get(SERVER, None)
    if report.failed and server and item.get_closest_marker("server"):
        tail = server.log_tail(start=item.stash[LOG_START])
        report.sections.append(("ComfyUI server log", tail))
    return report


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """The folder for screenshots and logs that outlive the run."""
    folder = ROOT / "output" / "test-artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def host_location(pytestconfig: pytest.Config) -> HostLocation:
    """Where ComfyUI lies."""
    location = pytestconfig.stash[LOCATION]
    assert location is not None, "tests that need a host are left out without one"
    return location


@pytest.fixture(scope="session")
def host(host_location: HostLocation, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """ComfyUI imported into this process, with the extension loaded."""
    from tests.support.host import Host

    return Host(host_location, tmp_path_factory.mktemp("comfyui-in-process"))


@pytest.fixture(scope="session")
def server(
    host_location: HostLocation,
    artifacts: Path,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ComfyServer]:
    """A live ComfyUI server with the extension loaded, and its client."""
    from tests.support.server import ComfyServer

    folder = tmp_path_factory.mktemp("comfyui-server")
    running = ComfyServer(host_location, folder, artifacts / "server.log")
    pytestconfig.stash[SERVER] = running
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    executable = find_chromium()
    assert executable is not None, "browser tests are left out without a Chromium"
    with sync_playwright() as playwright:
        chromium = launch_chromium(playwright, executable)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(
    browser: Browser, server: ComfyServer, artifacts: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., ComfyPage]]:
    """Opens ComfyUI's page with the given settings: `open_page({"Comfy.VueNodes.Enabled": True})`.

    At the end every opened page leaves a screenshot named after the test and must have logged no
    error; a test that provokes one clears `page.errors` itself.
    """
    pages: list[ComfyPage] = []

    def open_one(settings: dict[str, Any] | None = None) -> ComfyPage:
        page = ComfyPage(browser, server, artifacts)
        pages.append(page)
        page.open(settings or {})
        return page

    yield open_one
    name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    for number, page in enumerate(pages):
        page.screenshot(f"{name}-{number}" if number else name)
        page.close()
    assert [error for page in pages for error in page.errors] == []


@pytest.fixture
def page(open_page: Callable[..., ComfyPage]) -> ComfyPage:
    """ComfyUI's page, on the legacy canvas."""
    return open_page()
