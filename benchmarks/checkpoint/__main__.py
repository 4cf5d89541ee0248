"""Detection and filtering on a checkpoint of one's own; see docs/checkpoints.md.

    python -m benchmarks.checkpoint --workflow FILE.json [--runs 64] [--seed 0]
        [--prompts FILE.txt] [--oracle labels] [--output FOLDER] [-- OPTIONS OF COMFYUI]
    python -m benchmarks.checkpoint --quick

FILE is a workflow in the host's API form with an uncertain sampler and a decoder behind it. It is
run once a seed; images, maps and scores are kept as they come, and the same command goes on where
it was cut off. Then an oracle says what is malformed: people on a page of their own (`labels`), a
CLIP model (`clip`), or for the bundled models their own classifier. `--quick` measures the bundled
digits. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..experiment import progress
from . import CheckpointError
from .clip import clip_truth
from .contact_sheet import draw_sheet
from .figures import figures_of, markdown, plain
from .host import Executor, start_host
from .labelling_page import write_labelling_page
from .runs import BASELINES, Image, Runs, check_prompts
from .truth import BUNDLED, Verdict, bundled_truth, read_labels
from .workflow import examine, read_workflow

DIGITS = Path(__file__).with_name("digits.json")
RUNS = 64
QUICK_RUNS = 6
OUTPUT = Path("output/checkpoint")


def main() -> None:
    try:
        _main(*_command_line(sys.argv[1:]))
    except CheckpointError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on from here.")


def _command_line(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and behind `--` those of ComfyUI."""
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkpoint",
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Options behind -- are ComfyUI's own, such as -- --lowvram.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workflow", type=Path, help="a workflow exported in API form")
    what.add_argument("--quick", action="store_true", help="the bundled digits, 96 images")
    parser.add_argument("--node", help="id of the sampler, where there are several")
    parser.add_argument("--runs", type=int, help=f"how often the workflow runs, {RUNS} by default")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; they count up")
    parser.add_argument("--prompts", type=Path, help="prompts in turn, one per line, one run each")
    parser.add_argument("--oracle", choices=["labels", "clip", *BUNDLED])
    parser.add_argument("--clip", type=Path, help="a whole CLIP model, for the oracle clip")
    parser.add_argument("--output", type=Path, help="folder for everything")
    arguments = parser.parse_args(words[:cut])
    if arguments.oracle == "clip" and arguments.clip is None:
        parser.error("the oracle clip needs a CLIP model: name its file with --clip")
    if arguments.runs is not None and arguments.runs < 1:
        parser.error("--runs is at least 1")
    return arguments, words[cut + 1 :]


def _main(arguments: argparse.Namespace, host_options: Sequence[str]) -> None:
    source = DIGITS if arguments.quick else arguments.workflow
    nodes = read_workflow(source)
    prompts: tuple[str, ...] = ()
    if arguments.prompts:
        prompts = _read_prompts(arguments.prompts)
    elif arguments.quick:
        prompts = random_digits(QUICK_RUNS, 16)
    with tempfile.TemporaryDirectory() as folder:
        isolated = Path(folder) / "host" if arguments.quick else None
        report = progress()
        start_host(host_options, isolated)
        executor = Executor()
        workflow = examine(nodes, executor.types_of(nodes), arguments.node)
        kept = Path(folder) / "runs" if arguments.quick else OUTPUT / source.stem
        runs = Runs(arguments.output or kept, workflow, arguments.seed, prompts)
        runs.open()
        runs.measure(executor, arguments.runs or (QUICK_RUNS if arguments.quick else RUNS), report)
        oracle = arguments.oracle or ("digits" if arguments.quick else "labels")
        print(json.dumps(judge(source.stem, runs, oracle, arguments.clip, print)))


def judge(
    name: str, runs: Runs, oracle: str, clip: Path | None, show: Callable[[str], None]
) -> dict[str, object]:
    """Ask the oracle, show and write tables and sheets; returns the last line."""
    images = runs.images()
    write_labelling_page(runs.folder / "sheet.html", images, str(runs.folder.resolve()))
    last: dict[str, object] = {"benchmark": "checkpoint", "models": {}}
    truth = verdicts(runs, images, oracle, clip)
    if not truth:
        show(
            f"{len(images)} images. Open {runs.folder / 'sheet.html'}, mark what is malformed, "
            f"save labels.csv into {runs.folder}, and run the same command again."
        )
        return last
    found = figures_of(images, truth)
    page = markdown(name, oracle, runs.lines[0]["sampling"], found)
    show(page)
    (runs.folder / f"tables-{oracle}.md").write_text(page + "\n", encoding="utf-8")
    for signal in found.signals:
        if signal not in BASELINES:
            path = runs.folder / f"heatmaps-{oracle}" / f"{signal}.jpg"
            draw_sheet(path, signal, runs, images, truth)
    last["models"] = {f"{name}, {oracle}": plain(found)}
    return last


def verdicts(
    runs: Runs, images: Sequence[Image], oracle: str, clip: Path | None
) -> dict[str, Verdict]:
    """What is malformed; empty where people have not judged yet."""
    if oracle == "labels":
        path = runs.folder / "labels.csv"
        return read_labels(path, images) if path.is_file() else {}
    if oracle == "clip":
        assert clip is not None
        return clip_truth(clip, runs, images)
    return bundled_truth(oracle, runs, images)


def random_digits(runs: int, lines: int) -> tuple[str, ...]:
    """Prompts of the bundled digits, so many lines each, the same every time."""
    generator = random.Random(0)
    return tuple(
        "\n".join(" ".join(generator.choices("0123456789", k=4)) for _ in range(lines))
        for _ in range(runs)
    )


def _read_prompts(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    return check_prompts(lines)


if __name__ == "__main__":
    main()
