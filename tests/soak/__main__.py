"""Runs the soak: `python -m tests.soak --minutes 30`, or `--replay FILE` for what failed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import median
from typing import Any
from urllib.error import URLError

from tests.soak.graph import Graph
from tests.soak.judging import Outcome, digests_of, judge, slope_mb_per_100, temporary_mb
from tests.soak.workflows import (
    REFERENCES,
    Workflow,
    posterior_files,
    random_workflow,
    reference_workflow,
)
from tests.support.host_location import ROOT, find_host
from tests.support.server import ComfyServer, Execution, PromptRejectedError

REFERENCE_EVERY = 12
CANCELLED = 0.4
"""Share of prompts that a cancel is sent to; some have ended before it comes."""
LONGEST_PROMPT_S = 240


class Soak:
    """A server, what it has been asked, and what came of it."""

    def __init__(self, seed: int, report: Path, folder: Path) -> None:
        self.random = Random(seed)
        self.seed = seed
        self.report = report
        self.folder = folder
        self.outcomes: list[Outcome] = []
        self.info: dict[str, Any] = {}
        self.references: dict[str, dict[str, str]] = {}
        self.memory: list[list[float]] = []
        self.trimmed: list[float | None] = []
        self.tensors: list[float] = []
        self.held: Counter[str] = Counter()
        self.temporary = (0, 0.0)
        self.started = time.monotonic()
        self.server: ComfyServer | None = None

    def start_server(self) -> None:
        """Starts a server with the probe beside the extension, in a folder of its own."""
        base = self.folder / f"server-{len(self.memory)}"
        (base / "custom_nodes").mkdir(parents=True)
        os.symlink(ROOT / "tests/soak/probe", base / "custom_nodes/soak_probe")
        location = find_host()
        if location is None:
            raise SystemExit("The soak needs ComfyUI: name its folder in COMFYUI_PATH.")
        self.memory.append([])
        self.server = ComfyServer(location, base, self.report.with_name(f"{base.name}.log"))
        self.server.wait_until_ready()
        self.server.get("/soak/state")
        self.server.queue(posterior_files(self.server.get("/object_info")).prompt)
        self.info = self.server.get("/object_info")
        self.trimmed.append(self.server.get("/soak/trimmed"))
        print(f"{location}, seed {self.seed}, log {self.server.log}", flush=True)

    def stop_server(self) -> None:
        if self.server is not None:
            with suppress(URLError, OSError):
                self.trimmed.append(self.server.get("/soak/trimmed"))
            self.server.stop()
            self.server = None

    def next(self) -> None:
        """Runs one prompt, judges it and writes the report."""
        if self.server is None:
            self.start_server()
        number = len(self.outcomes)
        if number % REFERENCE_EVERY == 0:
            name = REFERENCES[number // REFERENCE_EVERY % len(REFERENCES)]
            outcome = self.run(reference_workflow(self.info, name, number), None, name)
        else:
            workflow = random_workflow(self.info, self.random)
            after = self.random.random() * self._usual_seconds()
            outcome = self.run(workflow, after if self.random.random() < CANCELLED else None)
        self.outcomes.append(outcome)
        print(outcome.line, flush=True)
        self.write()

    def run(self, workflow: Workflow, cancel: float | None, reference: str = "") -> Outcome:
        """Runs a workflow, cancelled after that many seconds, and looks at what it left."""
        server, begun = self.server, time.monotonic()
        assert server is not None
        outcome = Outcome(len(self.outcomes), "crash", workflow.parts, 0.0, prompt=workflow.prompt)
        outcome.cancelled_after = cancel
        try:
            execution = self._queue(workflow.prompt, cancel)
            outcome.ending, outcome.error, outcome.where = judge(execution)
            state = server.get("/soak/state")
        except PromptRejectedError as error:
            outcome.ending, outcome.error = "rejected", str(error)
            return outcome
        except (RuntimeError, TimeoutError, OSError) as error:
            outcome.error = str(error)
            self.stop_server()
            return outcome
        outcome.seconds = time.monotonic() - begun
        outcome.left = state["changed"]
        self.memory[-1].append(state["rss_mb"])
        self.tensors.append(state["tensors_mb"])
        self.held |= Counter(state["held"])
        self.temporary = temporary_mb(server.base_directory)
        found = digests_of(workflow, execution)
        if outcome.ending == "success":
            outcome.differs = [a for a, b in workflow.same if found.get(a) != found.get(b)]
            if reference:
                first = self.references.setdefault(reference, found)
                outcome.differs += [f"reference {n}" for n in first if found.get(n) != first[n]]
        return outcome

    def _queue(self, prompt: dict[str, Any], cancel: float | None) -> Execution:
        assert self.server is not None
        timer = threading.Timer(cancel or 0.0, self._interrupt)
        if cancel is not None:
            timer.start()
        try:
            return self.server.queue(prompt, check=False, timeout=LONGEST_PROMPT_S)
        finally:
            timer.cancel()
            if cancel is not None:
                timer.join()

    def _interrupt(self) -> None:
        with suppress(URLError, OSError):
            self.server.post("/interrupt")

    def _usual_seconds(self) -> float:
        ended = [o.seconds for o in self.outcomes[-50:] if o.ending == "success"]
        return median(ended) if ended else 3.0

    def summary(self) -> dict[str, Any]:
        """What the last line of the output says."""
        differing = [o for o in self.outcomes if any("reference" in n for n in o.differs)]
        endings = Counter(outcome.ending for outcome in self.outcomes)
        return {
            "benchmark": "soak",
            "prompts": len(self.outcomes),
            "crashes": endings["crash"],
            "left_behind": sum(bool(outcome.left) for outcome in self.outcomes),
            "reference_differs": len(differing),
            "raw_errors": endings["raw"],
            "slope_mb_per_100": slope_mb_per_100(max(self.memory, key=len, default=[])),
        }

    def write(self) -> None:
        """Writes the report: counts, and all of every prompt that failed."""
        errors = [o for o in self.outcomes if o.error]
        text = json.dumps(
            {
                **self.summary(),
                "seed": self.seed,
                "seconds": round(time.monotonic() - self.started),
                "endings": Counter(o.ending for o in self.outcomes),
                "cancels": sum(o.cancelled_after is not None for o in self.outcomes),
                "parts": Counter(part for o in self.outcomes for part in o.parts),
                "stock_differs": sum("latent" in o.differs for o in self.outcomes),
                "references": sum(o.parts == ["reference"] for o in self.outcomes),
                "errors": Counter(f"{o.ending}: {o.error}" for o in errors).most_common(),
                "temporary_files_and_mb": self.temporary,
                "rss_mb": [[round(mb, 1) for mb in series] for series in self.memory],
                "trimmed_rss_mb": self.trimmed,
                "tensors_mb": [round(mb, 1) for mb in self.tensors],
                "most_objects_held": self.held,
                "failures": [o.as_dict() for o in self.outcomes if o.failed],
            },
            indent=1,
        )
        self.report.parent.mkdir(parents=True, exist_ok=True)
        self.report.write_text(text, encoding="utf-8")

    def replay(self, file: Path) -> None:
        """Runs every failure of a report again."""
        self.start_server()
        for failure in json.loads(file.read_text(encoding="utf-8"))["failures"]:
            graph = Graph({}, self.random)
            graph.prompt = failure["prompt"]
            if self.server is None:
                self.start_server()
            outcome = self.run(Workflow(graph, failure["parts"]), failure["cancelled_after"])
            self.outcomes.append(outcome)
            print(outcome.line, outcome.where, sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--prompts", type=int, help="end after as many, if earlier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=ROOT / "output/soak.json")
    parser.add_argument("--replay", type=Path, help="a report whose failures are run again")
    arguments = parser.parse_args()
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(arguments.seed, arguments.report, Path(folder))
        try:
            if arguments.replay:
                soak.replay(arguments.replay)
            end = 0 if arguments.replay else time.monotonic() + 60 * arguments.minutes
            while time.monotonic() < end and len(soak.outcomes) != arguments.prompts:
                soak.next()
        except KeyboardInterrupt:
            print("Stopped.", flush=True)
        finally:
            soak.stop_server()
            soak.write()
            print(json.dumps(soak.summary()), flush=True)


if __name__ == "__main__":
    main()
