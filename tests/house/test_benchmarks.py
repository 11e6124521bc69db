"""Benchmarks run: every engine that is installed, on tiny towers. What they measure here means nothing."""

import importlib
import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from house.source_files import ROOT
from made.tile_sizes import using_isa
from qwenvis import ops
from qwenvis.nn.formats import DTYPES
from qwenvis.sources.presets import PRESETS

# What each engine needs, with its converter.
NEEDS = {
    "qwenvis": [],
    "torch": ["torch", "transformers"],
    "openvino": ["torch", "transformers", "openvino"],
    "onnxruntime": ["torch", "transformers", "onnx", "onnxscript", "onnxruntime"],
}
TORCH_IS_HERE = all(importlib.util.find_spec(name) for name in NEEDS["torch"])

TOWERS = {
    "tiny-qwen2-vl": ["qwenvis-f32", "qwenvis-bf16", "torch-bf16", "openvino-f32", "openvino-bf16"],
    "tiny-qwen2.5-vl": ["qwenvis-f32", "qwenvis-i8", "torch-f32", "onnxruntime-f32", "onnxruntime-i8"],
}
ERRORS = {"f32": 1e-5, "bf16": 0.03, "i8": 0.15}  # of the largest token


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """The repository's root on the path, checkpoints in a directory of the tests, the ISA as it was."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path_factory.getbasetemp() / "benchmarks"))
    with using_isa(ops.isa()):
        yield


def run(monkeypatch, name, *arguments):
    """The command line ``python -m benchmarks.NAME``."""
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    module.main()


def installed(engine):
    return all(importlib.util.find_spec(name) for name in NEEDS[engine.rsplit("-", 1)[0]])


def convert_in_this_process(monkeypatch):
    """As it has torch already, which a new process takes five seconds to import."""
    conversions = importlib.import_module("benchmarks.conversions")
    monkeypatch.setattr(conversions, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(workers))
    monkeypatch.setattr(conversions.logging, "disable", lambda level: None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_encoder(dtype, monkeypatch, capsys, tmp_path):
    options = ["--dtype", dtype, "--threads", 1, "--rounds", 1, "--json", tmp_path / "out.json"]
    run(monkeypatch, "encoder", "--model", "synthetic:tiny-qwen2-vl", "--case", "224", *options)
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["224", "256"]
    assert [len(row["seconds"]) for row in json.loads((tmp_path / "out.json").read_text())["rows"]] == [1]


def test_scaling(monkeypatch, capsys):
    options = ["--threads", 2, "--rounds", 1, "--most-patches", 16]
    run(monkeypatch, "scaling", "--model", "synthetic:tiny-qwen2-vl", *options)
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-3:]]
    assert rows == [["1", "1024"], ["2", "4"], ["2", "16"]]


@pytest.mark.parametrize("format", ops.formats())
def test_ops(format, monkeypatch, capsys):
    module = importlib.import_module("benchmarks.ops")
    monkeypatch.setattr(module, "SHAPES", [(8, 16, 24)])
    monkeypatch.setattr(module, "ODD_SHAPES", [(3, 5, 7)])
    monkeypatch.setattr(module, "SEGMENTS", [(4, 3)])
    run(monkeypatch, "ops", "--format", format, "--threads", 1, "--rounds", 1)
    printed = capsys.readouterr().out
    assert "linear 3 x 5 x 7" in printed
    assert "attention: median" in printed


def test_peak(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("qwenvis.cost.PEAK_FLOPS", 1e7)
    run(monkeypatch, "peak", "--threads", 1, "--rounds", 1, "--json", tmp_path / "out.json")
    printed = capsys.readouterr().out
    assert all(isa in printed for isa, present in ops.isas().items() if present)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["isa"] for row in rows} == {isa for isa, present in ops.isas().items() if present}


@pytest.mark.parametrize("more", [[], ["--packed"]], ids=str)
def test_start(more, monkeypatch, capsys, tmp_path):
    """Each line is a process of its own; from the third call on none of them touches a fresh page."""
    options = ["--side", 112, "--threads", 1, "--rounds", 1, "--json", tmp_path / "out.json"]
    run(monkeypatch, "start", "--model", "synthetic:tiny-qwen2-vl", *options, *more)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["float32", "bfloat16"]
    for row in json.loads((tmp_path / "out.json").read_text())["rows"]:
        assert all(row[step] > 0 for step in ("import", "open", "load", "first", "warm"))
        assert sum(row["faults"][2:]) < 10
        assert 30e6 < row["rss"] < 300e6


def test_alternating_warms_up_once_and_runs_in_turn(monkeypatch):
    timing = importlib.import_module("benchmarks.timing")
    monkeypatch.setattr("qwenvis.cost.peak_rate", lambda threads, format: {"f32": 8.0, "bf16": 16.0}[format])
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    runs = timing.alternate(contenders, range(2), 1, {"a": "bf16", "b": None})
    assert calls == list("ababab")
    assert (runs["a"].peaks, runs["b"].peaks) == ([16.0, 16.0], [])
    assert len(runs["b"].seconds) == 2


def test_rounds_end_with_the_time_but_for_the_first(monkeypatch):
    timing = importlib.import_module("benchmarks.timing")
    clock = iter([0.0, 59.0, 61.0, 62.0])
    monkeypatch.setattr(timing.time, "monotonic", lambda: next(clock))
    assert list(timing.within(1, 4)) == [0, 1]
    monkeypatch.setattr(timing.time, "monotonic", iter([0.0, 1.0]).__next__)
    assert list(timing.within(0, 2)) == [0]


@pytest.mark.skipif(not TORCH_IS_HERE, reason="needs torch and transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tower", TOWERS)
def test_peers_and_their_plot(tower, monkeypatch, capsys, tmp_path):
    convert_in_this_process(monkeypatch)
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    options = ["--threads", 1, "--rounds", 1, "--json", out, "--engines", *TOWERS[tower]]
    run(monkeypatch, "peers", "--cases", f"synthetic:{tower}/224", *options)
    expected = [engine for engine in TOWERS[tower] if installed(engine)]
    assert capsys.readouterr().err.count("is left out") == len(TOWERS[tower]) - len(expected)
    rows = {row["engine"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == expected
    for row in rows.values():
        assert row["error"] <= ERRORS[row["format"]]
        assert (row["fraction"] is None) == ops.formats()[row["format"]].expanded
        assert (row["model"], row["case"], row["patches"]) == (f"synthetic:{tower}", "224", 256)
    run(monkeypatch, "plot", out, "--value", "seconds", "--output", picture)
    with Image.open(picture) as image:
        assert image.size[0] > image.size[1]
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- python -m benchmarks.table -->\n<!-- end of the table -->\nAfter.\n")
    for _ in range(2):  # what was there is replaced
        run(monkeypatch, "table", out, "--into", page)
    lines = page.read_text().splitlines()
    formats = (("float32", "f32"), ("bfloat16", "bf16"), ("int8", "i8"))
    assert (lines[0], lines[-1]) == ("Before.", "After.")
    assert [line.split(" | ")[1:3] for line in lines if line.startswith(f"| {tower}")] == [
        ["224 x 224", word] for word, format in formats if f"-{format}" in str(rows)
    ]


def test_cases_of_peers(monkeypatch, capsys, tmp_path):
    """JSON is written after each; one that cannot be measured is left out, with its reason."""
    convert_in_this_process(monkeypatch)
    out = tmp_path / "out.json"
    cases = [f"synthetic:{name}/224" for name in ("tiny-qwen2-vl", "nothing", "tiny-qwen2.5-vl")]
    options = ["--threads", 1, "--rounds", 1, "--json", out, "--engines", "qwenvis-f32"]
    run(monkeypatch, "peers", "--cases", *cases, *options)
    assert [f"{row['model']}/{row['case']}" for row in json.loads(out.read_text())["rows"]] == [cases[0], cases[2]]
    assert "synthetic:nothing/224 is left out: SourceError: there is no preset" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, "peers", "--cases", "synthetic:tiny-qwen2-vl")
    assert "is not MODEL/CASE, where CASE is one of 224, 448" in capsys.readouterr().err


def test_cases_of_the_table_are_presets_and_cases():
    peers, encoder = (importlib.import_module(f"benchmarks.{name}") for name in ("peers", "encoder"))
    assert all(peers.case(text)[0].removeprefix("synthetic:") in PRESETS for text in peers.TABLE)
    assert encoder.CASES.keys() == encoder.TITLES.keys()


def test_all_engines_of_a_case_have_one_peak():
    """One that was held up raises no fraction; a format without a peak has none."""
    measured = importlib.import_module("benchmarks.measured")
    peaks = {"a": [200.0, 100.0], "b": [200.0, 210.0]}
    rows = [{"format": "f32", "flops": 300.0, "median": 2.0, "peaks": peaks[name]} for name in "ab"]
    rows.append({"format": "none", "flops": 300.0, "median": 1.0, "peaks": []})
    assert [row["fraction"] for row in measured.with_fractions(rows)] == [0.75, 0.75, None]


def test_a_plot_is_of_one_machine(monkeypatch, capsys, tmp_path):
    files = sorted((ROOT / "benchmarks" / "results").glob("peers-*.json"))
    with pytest.raises(SystemExit):
        run(monkeypatch, "plot", *files, "--output", tmp_path / "a.png")
    assert "a plot is of one" in capsys.readouterr().err


def test_a_table_marks_the_faster_of_several(tmp_path):
    table = importlib.import_module("benchmarks.table")
    row = {"model": "m", "case": "224", "patches": 256, "threads": 2, "fraction": None, "versions": {}}
    seconds = {("qwenvis-f32", "f32"): 2.0, ("torch-f32", "f32"): 1.0, ("qwenvis-bf16", "bf16"): 3.0}
    rows = [{**row, "engine": name, "format": format, "median": median} for (name, format), median in seconds.items()]
    (tmp_path / "a.json").write_text(json.dumps({"command": "it", "cpu": "c", "isa": "i", "rows": rows}))
    lines = [
        "| tower | input | format | qwenvis | transformers |",
        "| --- | --- | --- | --- | --- |",
        "| m | 224 x 224 | float32 | 2.00 | **1.00** |",
        "| m | 224 x 224 | bfloat16 | 3.00 |  |",
    ]
    of_one = table.tables([tmp_path / "a.json"], ["f32", "bf16"])
    assert of_one.splitlines() == ["c, ISA i, 2 threads, `it`:", "", *lines]

    larger = {**row, "engine": "qwenvis-f32", "format": "f32", "median": 4.0, "case": "448", "patches": 1024}
    (tmp_path / "b.json").write_text(json.dumps({"command": "its", "cpu": "c", "isa": "i", "rows": [larger]}))
    of_two = table.tables([tmp_path / "b.json", tmp_path / "a.json"], ["f32", "bf16"])  # the smaller case comes first
    head = ["c, ISA i, 2 threads, 2 runs:", "", "- `its`", "- `it`", ""]
    assert of_two.splitlines() == [*head, *lines, "| m | 448 x 448 | float32 | 4.00 |  |"]


def test_tables_of_the_readme_are_those_of_its_json():
    table = importlib.import_module("benchmarks.table")
    made = table.tables(sorted((ROOT / "benchmarks" / "results").glob("peers-*.json")), ["f32", "bf16", "i8"])
    assert f"{table.BEGIN}\n{made}\n{table.END}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_conversion_that_fails_in_its_process_says_why(tmp_path):
    conversions = importlib.import_module("benchmarks.conversions")
    work = conversions.Work("synthetic:tiny-qwen2-vl", "224", 1, tmp_path)
    assert conversions._converted(work, ["a", "b"]) == {
        name: f"AttributeError: 'Conversion' object has no attribute '{name}'" for name in "ab"
    }


@pytest.mark.skipif(not TORCH_IS_HERE, reason="needs torch and transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize(("dtype", "error"), [("float32", ERRORS["f32"]), ("bfloat16", ERRORS["bf16"])])
def test_a_plain_tower_is_that_of_transformers(tower, dtype, error, tmp_path):
    import torch

    conversions, plain_tower = (
        importlib.import_module(f"benchmarks.{name}") for name in ("conversions", "plain_tower")
    )
    work = conversions.Work(f"synthetic:{tower}", "224", 1, tmp_path)
    pixel_values, grid_thw = work.torch_inputs()
    with torch.inference_mode():
        expected = work.torch_tower("float32")(pixel_values, grid_thw=grid_thw).pooler_output
        tokens = plain_tower.PlainTower(work.torch_tower(dtype), grid_thw)(pixel_values)
    assert tokens.dtype == getattr(torch, dtype)
    assert conversions.deviation(tokens.float().numpy(), expected.numpy()) <= error


@pytest.mark.filterwarnings("ignore")
def test_zentorch_is_measured_where_it_optimises(tmp_path):
    pytest.importorskip("zentorch")
    conversions, engines = (importlib.import_module(f"benchmarks.{name}") for name in ("conversions", "engines"))
    work = conversions.Work("synthetic:tiny-qwen2-vl", "224", 1, tmp_path)
    build = engines.ENGINES["zentorch-f32"].build
    if ops.isas()["avx512"]:
        expected = engines.ENGINES["torch-f32"].build(work)()
        assert conversions.deviation(build(work)(), expected) <= ERRORS["f32"]
    else:
        with pytest.raises(RuntimeError, match="AVX-512"):
            build(work)


@pytest.mark.skipif(not TORCH_IS_HERE, reason="needs torch and transformers")
@pytest.mark.filterwarnings("ignore")
def test_a_plain_tower_wants_equal_segments():
    import torch

    plain_tower = importlib.import_module("benchmarks.plain_tower")
    spec = importlib.import_module("qwenvis.spec").ModelSpec.open("synthetic:tiny-qwen2.5-vl")
    tower = plain_tower.load(spec.checkpoint, spec.family, torch.float32)
    with pytest.raises(ValueError, match=r"segments of \[16, 64\] patches"):
        plain_tower.PlainTower(tower, torch.tensor([[1, 8, 10]]))


def test_pixels(monkeypatch, capsys):
    pytest.importorskip("transformers")
    run(monkeypatch, "pixels", "--size", 160, 120, "--images", 3, "--threads", 2, "--rounds", 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert sum("transformers" in line for line in lines) == 2
    assert all(line.endswith(" ms") for line in lines[1:])


def test_cache(monkeypatch, capsys):
    run(monkeypatch, "cache", "--models", "synthetic:tiny-qwen2-vl", "--side", 112, "--threads", 1, "--rounds", 3)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_sharing(monkeypatch, capsys):
    pytest.importorskip("av")
    run(monkeypatch, "pixels", "--sharing", "--size", 160, 120, "--images", 3, "--threads", 2, "--rounds", 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert all(line.endswith(" %") for line in lines[1:])
