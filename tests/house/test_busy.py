"""The benchmark of a busy machine runs, on a small tower; its figures mean nothing here."""

import importlib
import json
import sys

from house.source_files import ROOT


def test_busy(monkeypatch, capsys, tmp_path):
    """Both builds are this one, in a directory with other benchmarks; each line is of a process of its own."""
    monkeypatch.syspath_prepend(ROOT)
    busy = importlib.import_module("benchmarks.busy")
    monkeypatch.setattr(busy, "START", 0)
    other = tmp_path / "other"
    (other / "benchmarks").mkdir(parents=True)
    (other / "benchmarks" / "__init__.py").touch()
    (other / "qwenvis").symlink_to(ROOT / "qwenvis")
    options = ["--cases", "small/224", "--threads", "2", "--busy", "0", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["busy", *options, "--against", str(other), "--json", str(tmp_path / "out.json")])
    busy.main()
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert lines == [["small/224", name, threads] for name in ("this", "other") for threads in "21"]
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [sorted(row["seconds"]) for row in rows] == [["0", "1"]] * 4


def test_a_time_that_the_share_explains_is_one(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    busy = importlib.import_module("benchmarks.busy")
    monkeypatch.setattr(busy, "available", lambda: 4)
    assert busy.shares({0: [2.0, 2.0, 9.0], 3: [2.5], 6: [4.0]}, 2).split() == [
        "2.000",
        "1.000",
        "2.500",
        "1.000",
        "4.000",
        "1.000",
    ]
