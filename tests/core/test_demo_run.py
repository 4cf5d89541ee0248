"""`make demo` from end to end, with fewer steps."""

import demo.run


def test_it_ranks_its_scenes_and_writes_its_pictures(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo.run, "OUTPUT", tmp_path)
    monkeypatch.setattr(demo.run, "STEPS", 8)
    monkeypatch.setattr("sys.argv", ["demo.run"])
    demo.run.main()
    written = {path.name for path in tmp_path.iterdir()}
    kinds = {f"{kind}_{i:02}.png" for kind in ("scene", "heatmap", "overlay") for i in range(16)}
    assert kinds | {"sheet_from_sure_to_unsure.png", "repair.png"} <= written
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("scene"))
    scores = [float(line.split()[5 + 1]) for line in lines[first + 1 : first + 17]]
    assert lines[first].split()[2] == "artifact"
    assert scores == sorted(scores)
    assert "largest change outside the mask: 0.0" in "\n".join(lines)
