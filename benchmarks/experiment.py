"""What every benchmark needs around its measurement: options, progress, results, pages, files."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "DOCS",
    "Report",
    "Results",
    "command_line",
    "markdown_table",
    "progress",
    "replace_blocks",
    "replacing",
    "run_sections",
    "write_json",
]

DOCS = Path(__file__).parent.parent / "docs"

Results = dict[str, Any]
"""Figures as they are written to JSON."""

Report = Callable[[str], None]


def command_line(
    name: str,
    documentation: str | None,
    *,
    quick: str = "",
    sections: Iterable[str] = (),
    output: str = "",
) -> argparse.ArgumentParser:
    """A parser for `python -m benchmarks.NAME`, with the usual options that are asked for.

    Arguments:
        name: Of the module that is run, without `benchmarks`.
        documentation: Docstring of that module; its first paragraph describes the command.
        quick: Help of `--quick`.
        sections: Choices of `--sections`.
        output: Help of `--output`, a path.
    """
    description = (documentation or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=description)
    if quick:
        parser.add_argument("--quick", action="store_true", help=quick)
    if sections:
        parser.add_argument("--sections", nargs="+", choices=[*sections])
    if output:
        parser.add_argument("--output", type=Path, help=output)
    return parser


def progress(quiet: bool = False) -> Report:
    """A function that prints a text behind the seconds since now, or with `quiet` nothing."""
    start = time.perf_counter()

    def report(text: str) -> None:
        if not quiet:
            print(f"[{time.perf_counter() - start:6.0f} s] {text}", flush=True)

    return report


def run_sections(
    sections: Mapping[str, Callable[[], Results]],
    names: Iterable[str],
    show: Callable[[Results], None],
    output: Path | None,
) -> dict[str, Results]:
    """Measure sections in turn, show each, and write all figures as each one finishes.

    Arguments:
        sections: Measurements by name.
        names: Those to run.
        show: Prints the figures of one section.
        output: JSON file; what it holds of other sections is kept.

    Returns:
        Figures by section, with those that `output` held before.
    """
    found = json.loads(output.read_text()) if output and output.is_file() else {}
    for name in names:
        found[name] = sections[name]()
        show(found[name])
        if output:
            write_json(output, found)
    return found


def write_json(path: Path, figures: object) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(figures, indent=1) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `path` once that is done: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    yield unfinished
    unfinished.replace(path)


def replace_blocks(page: Path, texts: Mapping[str, str]) -> None:
    """Replace what stands between the marks `<!-- NAME: start -->` and `<!-- NAME: end -->`.

    Arguments:
        page: A file in docs/.
        texts: New content by name.

    Raises:
        ValueError: The page lacks a mark.
    """
    content = page.read_text()
    for name, text in texts.items():
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        if start not in content or end not in content:
            raise ValueError(f"docs/{page.name} has no marks for '{name}'; put them back.")
        before, rest = content.split(start, 1)
        after = rest.split(end, 1)[1]
        content = f"{before}{start}\n\n{text}\n\n{end}{after}"
    page.write_text(content)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a cell must not hold a bare `|`."""
    lines = [f"| {' | '.join(line)} |" for line in [heads, *rows]]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])
