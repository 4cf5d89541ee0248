"""Promises the project makes about itself: who may import the host, and what it depends on."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host_location import ROOT

PACKAGES = ("bayesdiff_core", "nodes", "benchmarks", "demo")

HOST_MODULES = {
    *("comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution"),
    *("folder_paths", "latent_preview", "node_helpers", "nodes", "server"),
}


def imported_packages(path: Path) -> set[str]:
    """The top-level names of a file's absolute imports, wherever in it they stand."""
    names: set[str] = set()
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            names.add(statement.module.partition(".")[0])
    return names


def test_core_knows_no_host():
    offenders = {
        path.name: found
        for path in (ROOT / "bayesdiff_core").rglob("*.py")
        if (found := imported_packages(path) & HOST_MODULES)
    }
    assert offenders == {}


def test_one_package_of_the_nodes_speaks_to_comfy():
    speakers = {
        path.relative_to(ROOT / "nodes").parts[0]
        for path in (ROOT / "nodes").rglob("*.py")
        if "comfy" in imported_packages(path)
    }
    assert speakers == {"host"}


def test_what_does_not_speak_to_comfy_does_not_live_there():
    modules = [path for path in (ROOT / "nodes/host").rglob("*.py") if path.stem != "__init__"]
    silent = [path.name for path in modules if "comfy" not in imported_packages(path)]
    assert silent == []
    assert len(modules) <= 18


def names_taken(path: Path) -> Iterator[tuple[Path, str]]:
    """Every name that a file imports from another file of the project, with that file."""
    package = path.relative_to(ROOT).parent.parts
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(statement, ast.ImportFrom):
            continue
        above = package[: len(package) - statement.level + 1] if statement.level else ()
        module = ROOT.joinpath(*above, *(statement.module or "").split("."))
        if module.with_suffix(".py").is_file():
            for alias in statement.names:
                yield module.with_suffix(".py"), alias.name


def public_names(path: Path) -> set[str] | None:
    """What `__all__` lists; None where there is none."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and "__all__" in ast.unparse(statement.targets[0]):
            return set(ast.literal_eval(statement.value))
    return None


def test_all_is_what_others_import():
    """In the core, the nodes, the benchmarks and the demo; tests may look behind it."""
    files = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py")]
    taken = {pair for path in files for pair in names_taken(path)}
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in taken
        if (public := public_names(path)) is not None and name not in public
    }
    assert missing == set()
    without = {
        str(path.relative_to(ROOT))
        for path, _ in taken
        if path.parent.name != "nodes"
        and path.stem not in ("__init__", "__main__")
        and public_names(path) is None
    }
    assert without == set()


def test_both_lists_of_requirements_agree():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed == project["dependencies"]


def test_help_pages_say_what_contrast_costs():
    from bayesdiff_core.signals import CONTRAST_LEVELS

    words = {4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
    cost = words[len(CONTRAST_LEVELS)]
    pages = {
        path.name: re.findall(r"\*\*contrast\*\*: (\w+) evaluations", path.read_text("utf-8"))
        for path in (ROOT / "js" / "docs").glob("*.md")
    }
    told = {name: found for name, found in pages.items() if found}
    assert len(told) == 3
    assert all(found == [cost] for found in told.values())
