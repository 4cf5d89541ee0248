"""Write the tables and pictures of docs/evidence.md from what the benchmarks measured.

    python -m benchmarks.evidence_report [--results docs/evidence]

Takes detect.json and repair.json of that folder, and the scenes that the repair benchmark left in
the cache. The text around the tables lives in docs/evidence.md itself: only what stands between a
pair of marks is replaced. What was not measured is said to be so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from bayesdiff_core.render.heatmap import colorize, normalize, overlay
from bayesdiff_core.render.marks import contour
from bayesdiff_core.render.upsample import upsample

from .contact_sheet import Tile, contact_sheet, write_picture
from .experiment import DOCS, Results, command_line, markdown_table, replace_blocks
from .metrics import Interval
from .repair.loop_figures import PICTURES

__all__ = ["blocks"]

MISSING = "Not measured yet."

NAMES = {
    "artifact": "`artifact`",
    "contrast": "`contrast`",
    "trajectory": "`trajectory`",
    "posterior": "`posterior`, tangents, balanced",
    "ensemble M=5": "`posterior`, ensemble M=5",
    "bayesdiff S=10": "`posterior`, published, S=10",
    "bayesdiff, skip 5": "`posterior`, published, skip 5",
    "mid-grey": "mid-grey 1 - x^2",
    "|cond - uncond|": "\\|cond - uncond\\|, last step",
    "|cond - uncond|, all levels": "\\|cond - uncond\\|, all levels",
}
MAIN = (
    "artifact", "contrast", "trajectory", "posterior", "ensemble M=5", "bayesdiff S=10",
    "bayesdiff, skip 5", "|cond - uncond|", "total variation", "intensity", "mid-grey",
)  # fmt: skip


def blocks(detect: Results, repair: Results) -> dict[str, str]:
    """The text of every block, by its name in docs/evidence.md."""
    found = {
        f"detect {name}": detection(detect, name)
        for name in ("digits", "digits-cfg1.5", "emoji", "letters")
    }
    return found | {
        "ideas": ideas(detect),
        "filtering": filtering(detect),
        "consistency": section(consistency, detect, "consistency"),
        "grid": section(grid, repair, "grid"),
        "default": section(default, repair, "default"),
        "default letters": section(default, repair, "letters-default"),
        "loop": section(loop, repair, "loop"),
        "loop letters": section(loop, repair, "letters-loop"),
    }


def section(write: Callable[[Results], str], found: Results, name: str) -> str:
    return write(found[name]) if name in found else MISSING


def detection(detect: Results, name: str) -> str:
    """The main signals of one section, one table per truth."""
    if name not in detect:
        return MISSING
    truths, plan = detect[name]["truths"], detect[name]["setting"]
    parts = []
    for truth, table in truths.items():
        signals = costly_signals(detect, name) | table["signals"]
        judged = "" if len(truths) == 1 else f", truth by {truth}"
        one = f", {table['scenes_with_one']} scenes with exactly one" if has_top1(table) else ""
        parts += [
            f"{table['scenes']} scenes of {plan['model']}, {detect[name]['steps']} Euler steps, "
            f"cfg {plan['guidance_scale']:g}{judged}: {table['malformed']} of {table['regions']} "
            f"regions malformed{one}.",
            signal_table({key: signals[key] for key in MAIN if key in signals}, table),
        ]
    return "\n\n".join(parts)


COSTLY = {"digits": "costly", "letters": "costly-letters"}


def costly_signals(detect: Results, name: str) -> Results:
    """What was run on fewer scenes of the same section."""
    costly: Results = detect.get(COSTLY.get(name, ""), {})
    return costly["truths"]["category"]["signals"] if costly else {}


def has_top1(table: Results) -> bool:
    return bool(table["regions"] > table["scenes"])


def signal_table(signals: Results, table: Results) -> str:
    columns = {"auroc": "AUROC, mean", "auroc_top10": "AUROC, top 10%"}
    if has_top1(table):
        columns["top1"] = "top-1"
    rows = []
    for name, row in signals.items():
        note = ", its own pictures" if row["own_pictures"] else ""
        figures = [interval(row[key]) if key in row else "" for key in columns]
        title = f"{NAMES.get(name, name)}{note}"
        rows.append([title, f"{row['cost']:.2f}", str(row["scenes"]), *figures])
    return markdown_table(["signal", "cost", "scenes", *columns.values()], rows)


def ideas(detect: Results) -> str:
    """Every further idea: on the scenes to choose on, and on the others."""
    if "choice" not in detect:
        return MISSING
    chosen = detect["choice"]["truths"]["category"]
    columns = {"choice": chosen["signals"]}
    heads = [f"other scenes ({chosen['scenes']})"]
    for name, title in (
        ("digits", "digits, cfg 1"),
        ("digits-cfg1.5", "digits, cfg 1.5"),
        ("letters", "letters"),
        ("emoji", "emoji, by category"),
    ):
        if name in detect:
            columns[name] = dict(detect[name]["truths"]["category"]["signals"])
            columns[name] |= {
                key: row for key, row in costly_signals(detect, name).items() if "oracle" in key
            }
            heads.append(title)
    names = dict.fromkeys(name for signals in columns.values() for name in signals)
    lines = []
    for name in names:
        if name in MAIN and name not in ("artifact", "contrast", "trajectory"):
            continue
        rows = [signals.get(name) for signals in columns.values()]
        cost = next(row["cost"] for row in rows if row)
        cells = [idea_cell(row, name) if row else "" for row in rows]
        lines.append([NAMES.get(name, name), f"{cost:.2f}", *cells])
    return markdown_table(["idea", "cost", *(f"{head}: top 10%, gain" for head in heads)], lines)


def idea_cell(row: Results, name: str) -> str:
    cell = f"{row['auroc_top10']['mean']:.3f}"
    gain = row.get("gain")
    if gain is None or name == "artifact":
        return cell
    return f"{cell}, {Interval(**gain).signed}"


def filtering(detect: Results) -> str:
    parts = []
    for name in ("digits", "letters"):
        if "filtering" in detect.get(name, {}):
            found = dict(detect[name]["filtering"])
            own = detect.get(COSTLY[name], {}).get("filtering", {})
            found |= {key: part for key, part in own.items() if isinstance(part, dict)}
            parts.append(filter_table(detect[name]["setting"]["model"], found))
    return "\n\n".join(parts) or MISSING


def filter_table(model: str, found: Results) -> str:
    plain = found["plain"]
    text = (
        f"{model}, cfg 1: {plain['kept']} of {plain['scenes']} scenes kept. Distances in "
        f"{found['axes']} axes; of real training parts to held-out ones: "
        f"{found['real_to_real']:.3f}."
    )
    lines = []
    for title, part in found.items():
        if not isinstance(part, dict):
            continue
        prefix = "" if title == "plain" else f"{title} ({part['scenes']} scenes): "
        for rule, row in part["rows"].items():
            spread = row.get("deviation")
            cells = [
                f"{row[key]:.3f}" + (f" ± {spread[key]:.3f}" if spread else "")
                for key in ("regions", "scenes", "frechet")
            ]
            lines.append([prefix + rule.replace("|", "\\|"), *cells])
    heads = "dropped by", "regions accepted", "whole scenes right", "Frechet distance"
    return f"{text}\n\n{markdown_table(heads, lines)}"


def consistency(found: Results) -> str:
    """The rank correlations of the published method's scores, and of the tangents'."""
    names, matrix = found["methods"], torch.tensor(found["matrix"])
    parts = [f"{found['scenes']} scenes of digits at cfg 1."]
    for word in ("bayesdiff", "tangent"):
        index = [i for i, name in enumerate(names) if name.startswith(word)]
        short = [re.sub(rf"^{word},? ", "", names[i]) for i in index]
        rows = [[short[n], *(f"{matrix[i, j]:.2f}" for j in index)] for n, i in enumerate(index)]
        parts.append(markdown_table([word, *short], rows))
    return "\n\n".join(parts)


def grid(found: Results) -> str:
    """Share made right by noise mode and start, then by rule and number of candidates."""
    bad = [row for row in found["rows"] if row["kind"] == "bad"]
    starts = sorted({row["denoise"] for row in bad})
    modes = list(dict.fromkeys(row["mode"] for row in bad))
    cases = {row["cases"] for row in bad}
    counts = sorted({row["n"] for row in bad if row["mode"] == "denoised"})
    by_mode = [
        [mode, *(cell(bad, mode, start, "random", 1, False) for start in starts)] for mode in modes
    ]
    by_rule = []
    for start in starts:
        for rule in ("posterior", "trajectory", "contrast", "artifact", "oracle"):
            cells = [cell(bad, "denoised", start, rule, count, False) for count in counts]
            if any(cells):
                by_rule.append([f"{start:g}", rule, *cells])
    return "\n\n".join(
        [
            f"{min(cases)} malformed quadrants, one candidate (mean over all candidates drawn):",
            markdown_table(["noise", *(f"start {start:g}" for start in starts)], by_mode),
            "Candidates and rules, noise `denoised`, no original kept:",
            markdown_table(["start", "rule", *(f"N = {count}" for count in counts)], by_rule),
        ]
    )


def cell(rows: list[Results], mode: str, start: float, rule: str, count: int, keep: bool) -> str:
    for row in rows:
        same = (row["mode"], row["denoise"], row["rule"], row["n"], row["keep"])
        if same == (mode, start, rule, count, keep):
            return interval(row["right"])
    return ""


def default(found: Results) -> str:
    """What each rule makes of malformed and of good quadrants under the product's default."""
    rows = found["rows"]
    cases = {kind: max(r["cases"] for r in rows if r["kind"] == kind) for kind in ("bad", "good")}
    lines = []
    for rule, count, keep in (
        ("random", 1, False), ("trajectory", 4, False), ("trajectory", 4, True),
        ("contrast", 4, False), ("contrast", 4, True), ("artifact", 4, False),
        ("artifact", 4, True), ("oracle", 4, False),
    ):  # fmt: skip
        bad, good = (
            next(
                row["right"] for row in rows
                if (row["kind"], row["rule"], row["n"], row["keep"]) == (kind, rule, count, keep)
            )
            for kind in ("bad", "good")
        )  # fmt: skip
        broken = {"mean": 1 - good["mean"], "low": 1 - good["high"], "high": 1 - good["low"]}
        title = f"{rule}, original kept where better" if keep else rule
        lines.append([title, interval(bad), interval(broken)])
    return "\n\n".join(
        [
            f"{cases['bad']} malformed and {cases['good']} good quadrants, start 0.7, N = 4.",
            markdown_table(["rule", "malformed made right", "good broken"], lines),
            f"Largest change outside the mask: {found['outside_max_abs']:g}.",
        ]
    )


def loop(found: Results) -> str:
    """The loop round by round, against scenes sampled anew at its cost."""
    rule = found["rule"]
    lines = []
    for row in found["rounds"]:
        anew = [
            f"{interval(row[key])}; loop {Interval(**row[f'gain_over_{key}']).signed}"
            if key in row and row["rounds"]
            else ""
            for key in ("anew_all", "anew_flagged")
        ]
        regions = [f"{row[key]:.3f}" for key in ("regions_fixed", "regions_broken")]
        figures = [f"{row['cost']:.1f}", interval(row["right"]), *regions, *anew]
        lines.append([str(row["rounds"]), *figures])
    judged = "all four right", "malformed made right", "good broken"
    anew_heads = "sampled anew, all", "sampled anew, the flagged ones"
    return "\n\n".join(
        [
            f"{found['scenes']} scenes, {found['flagged']:.0%} flagged. Rule: artifact above "
            f"{rule['threshold']:g}, regions of at least {rule['minimum_area']} pixels, grown by "
            f"{rule['grow']:g}; start {rule['denoise']:g}, N = {rule['candidates']}.",
            markdown_table(["rounds", "cost a scene", *judged, *anew_heads], lines),
            f"Largest change outside the masks: {found['outside_max_abs']:g}.",
        ]
    )


def interval(value: Results) -> str:
    return str(Interval(**value))


SIZE = 160
LIMITS = (0.0, 0.3)
"""Ends of the heat's scale, in squared latent units, the same for every picture."""


def pictures(found: dict[str, Tensor], index: Tensor, path: Path) -> None:
    """Before, heat with the outline of what was sampled again, after: one row per scene."""
    before, after = (enlarged(found[name][index]) for name in ("before", "after"))
    maps = upsample(found["map"][index].clamp(min=0), (SIZE, SIZE))
    limits = torch.tensor(LIMITS).expand(len(index), 2)
    heat = overlay(before, colorize(maps, limits), 0.8, normalize(maps, limits))
    masks = interpolate(found["mask"][index][:, None], size=(SIZE, SIZE), mode="nearest")[:, 0]
    heat = contour(heat, masks)
    rows = []
    for row, scene in enumerate(index.tolist()):
        a, b, c, d = found["labels"][scene].long().tolist()
        wrong = [int(found[f"bad_{when}"][scene].sum()) for when in ("before", "after")]
        rows.append(
            [
                Tile(before[row].numpy(), f"asked {a} {b} / {c} {d}: {wrong[0]} wrong"),
                Tile(heat[row].numpy(), "artifact, masked"),
                Tile(after[row].numpy(), verdict(wrong[1])),
            ]
        )
    write_picture(path, contact_sheet(rows, 3))


def verdict(wrong: int) -> str:
    return "after: all right" if wrong == 0 else f"after: {wrong} wrong"


def enlarged(latents: Tensor) -> Tensor:
    """Scenes (B, 1, H, W) as images (B, SIZE, SIZE, 3) in [0, 1], each pixel a square."""
    large = interpolate(latents.clamp(-1, 1) / 2 + 0.5, size=(SIZE, SIZE), mode="nearest")
    return large.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()


def main() -> None:
    parser = command_line("evidence_report", __doc__)
    parser.add_argument("--results", type=Path, default=DOCS / "evidence")
    arguments = parser.parse_args()

    def read(name: str) -> Results:
        path: Path = arguments.results / name
        return json.loads(path.read_text()) if path.is_file() else {}

    replace_blocks(DOCS / "evidence.md", blocks(read("detect.json"), read("repair.json")))
    if not PICTURES.is_file():
        print(
            "No scenes in the cache: run `python -m benchmarks.repair --sections loop` for them."
        )
        return
    found = load_file(PICTURES)
    for name, moment, count in (
        ("loop.png", "bad_before", 4),
        ("loop_failures.png", "bad_after", 2),
    ):
        index = found[moment].any(1).nonzero()[:count, 0]
        if len(index):
            pictures(found, index, DOCS / "images" / name)


if __name__ == "__main__":
    main()
