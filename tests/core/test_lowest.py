"""The lowest versions that `make test-lowest` installs are those that requirements.txt states."""

from __future__ import annotations

from importlib.metadata import version

from tests.support.host_location import ROOT


def stated(name: str, sign: str) -> dict[str, tuple[int, ...]]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split(sign) for line in lines if sign in line and not line.startswith("#")]
    return {package: numbers(least) for package, least in pairs}


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())


def test_the_lowest_versions_are_tested():
    asked, installed = stated("requirements.txt", ">="), stated("requirements-lowest.txt", "==")
    for package, least in asked.items():
        # The first of its kind: 4.8 begins with 4.8.0.
        assert installed[package][: len(least)] == least
        assert not any(installed[package][len(least) :]), package


def test_what_is_installed_is_not_older():
    for package, least in stated("requirements.txt", ">=").items():
        assert numbers(version(package)) >= least
