"""benchmarks.first_token runs, on a tiny model. What it measures here means nothing."""

import importlib
import json
import sys

from house.source_files import ROOT


def test_first_token(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(ROOT)
    options = ["--side", "112", "--threads", "1", "--rounds", "2", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["first_token", "--preset", "tiny-qwen2-vl", *options])
    importlib.import_module("benchmarks.first_token").main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
    models = [(dtype, model) for dtype in ("bfloat16", "float32") for model in ("transformers", "attached")]
    assert [tuple(line[:2]) for line in lines] == models
    for row in json.loads((tmp_path / "out.json").read_text())["rows"]:
        assert len(row["seconds"]) == len(row["tower"]) == 2
        assert all(0 < tower < seconds for tower, seconds in zip(row["tower"], row["seconds"], strict=True))
