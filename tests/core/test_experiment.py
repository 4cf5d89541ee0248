"""What all benchmarks share: results that outlive an interruption, pages, contact sheets."""

import json

import numpy as np
import pytest

from benchmarks.contact_sheet import Tile, contact_sheet
from benchmarks.experiment import markdown_table, replace_blocks, replacing, run_sections


def test_sections_are_written_as_they_finish_and_others_are_kept(tmp_path):
    path = tmp_path / "folder" / "results.json"
    shown = []

    def cut_off():
        raise KeyboardInterrupt

    run_sections({"a": lambda: {"x": 1}}, ["a"], shown.append, path)
    with pytest.raises(KeyboardInterrupt):
        sections = {"b": lambda: {"x": 2}, "c": cut_off}
        run_sections(sections, ["b", "c"], shown.append, path)
    assert json.loads(path.read_text()) == {"a": {"x": 1}, "b": {"x": 2}}
    assert shown == [{"x": 1}, {"x": 2}]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path) as unfinished:
        unfinished.write_text("new")
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "new"


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before <!-- a: start --> old <!-- a: end --> after")
    replace_blocks(page, {"a": "new"})
    expected = "before <!-- a: start -->\n\nnew\n\n<!-- a: end --> after"
    assert page.read_text() == expected
    with pytest.raises(ValueError, match="no marks for 'b'"):
        replace_blocks(page, {"a": "newer", "b": "new"})
    assert page.read_text() == expected


def test_a_table_has_a_line_under_its_heads():
    assert markdown_table(["a", "b"], [["1", ""]]) == "| a | b |\n|---|---|\n| 1 |  |"


def test_tiles_of_a_contact_sheet_keep_their_pixels_and_their_places():
    images = np.random.default_rng(0).random((3, 20, 30, 3), dtype=np.float32)
    rows = [[Tile(images[0], ""), Tile(images[1], "")], [Tile(images[2], "one")]]
    sheet = contact_sheet(rows, 2)
    assert (sheet[10:30, 10:40] == images[0]).all()
    assert (sheet[10:30, 50:80] == images[1]).all()
    assert (sheet[64:84, 10:40] == images[2]).all()
    assert sheet.shape == (2 * 54 + 10, 2 * 40 + 10, 3)
