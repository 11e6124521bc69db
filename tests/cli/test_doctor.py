"""What ``qwenvis doctor`` says of this machine, and of what is in its environment."""

import json
import os

import av
import numpy as np
import pytest

from qwenvis import cli, cost, ops
from qwenvis.cli import doctor, machine, units
from qwenvis.nn.formats import DTYPES

VARIABLES = ("QWENVIS_NUM_THREADS", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """None of the variables that it tells of, and no time for its measurements."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path))
    monkeypatch.setattr(cost, "BEST_SECONDS", 0.0)


@pytest.fixture
def told(capsys):
    """Run the command: (exit code, lines on stdout, stderr)."""

    def told(*options):
        code = cli.main(["doctor", *options])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return told


def words(name):
    """What the command says of a fact."""
    return doctor.WORDS[name][1](machine.FACTS[name]())


def test_doctor_is_well(told):
    code, lines, err = told()
    assert (code, err) == (0, "")
    text = dict(line.split(maxsplit=1) for line in lines)
    assert text["ISA"].startswith(ops.isa())
    assert "generic" in text["ISA"]
    assert "CPUs that this process may use" in text["threads"] or "quota" in text["threads"]
    assert f"NumPy {np.__version__}" in text["libraries"]
    assert lines[-1] == "No problems found."


def test_formats_are_listed_by_what_the_cpu_does_with_them(isa):
    text = words("formats")
    assert [word.split()[0] for word in text.split(", ")] == list(DTYPES)
    assert ("bfloat16 (stored; multiplied as float32)" in text) == ops.formats()["bf16"].expanded


def test_doctor_names_the_variable_and_the_problem(told, monkeypatch):
    monkeypatch.setenv("QWENVIS_NUM_THREADS", "3")
    assert any(line.startswith("threads     3, from QWENVIS_NUM_THREADS=3") for line in told()[1])
    monkeypatch.setenv("QWENVIS_NUM_THREADS", "many")
    code, lines, err = told()
    assert code == 1
    assert any(line.startswith("threads     PROBLEM: the environment variable QWENVIS_NUM_THREADS") for line in lines)
    assert err.startswith("qwenvis: ")
    assert "".join(lines).count("QWENVIS_NUM_THREADS") == 1
    assert lines.count("load        unknown, because of the problem above") == 1


def test_json_has_the_facts(told, monkeypatch):
    code, lines, err = told("--json")
    facts = json.loads("\n".join(lines))
    assert (code, err) == (0, "")
    assert list(facts) == [*doctor.WORDS, "problems"] == [*machine.FACTS, "problems"]
    assert (facts["isa"]["name"], facts["isa"]["compiled"], facts["problems"]) == (ops.isa(), ops.isas(), [])
    assert facts["libraries"]["numpy"] == np.__version__
    assert facts["extras"]["av"]["version"] == av.__version__
    assert all(speed["rate"] > 0 and speed["peak"] > 0 for speed in facts["speed"]["formats"].values())
    monkeypatch.setenv("QWENVIS_NUM_THREADS", "many")
    code, lines, _ = told("--json")
    facts = json.loads("\n".join(lines))
    assert (code, facts["threads"], facts["load"], len(facts["problems"])) == (1, None, None, 1)


def test_extras_are_told_with_their_purpose(monkeypatch):
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    assert f"av {av.__version__} with libavcodec {libavcodec}, for videos" in words("extras")

    def missing(name):
        raise ImportError(f"nothing is called {name}")

    monkeypatch.setattr(machine.importlib, "import_module", missing)
    text = words("extras")
    assert "no av: pip install 'qwenvis[video]' for videos (nothing is called av)" in text
    assert "no pyarrow: pip install 'qwenvis[arrow]' for Embeddings.to_arrow" in text
    assert "no gguf: pip install 'qwenvis[gguf]'" in text


@pytest.mark.parametrize(
    ("share", "threads", "told"),
    [
        (1.0, 2, "; products got 100% of 2 CPUs: the machine is free"),
        (0.93, 9, "; products got 93% of 4 CPUs: the machine is free"),
        (0.5, 1, "; products got 50% of 1 CPU: other programs are running, and a call takes about 2.0 times as long"),
    ],
)
def test_load_of_the_machine(monkeypatch, share, threads, told):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.25, 5.0, 5.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr("qwenvis.concurrency.threads.available", lambda: 4)
    monkeypatch.setattr(cost, "cpu_share", lambda count: share)
    monkeypatch.setenv("QWENVIS_NUM_THREADS", str(threads))
    text = words("load")
    assert text.startswith(f"1.2 programs on 8 CPUs in the last minute{told}")


def test_load_counts_the_threads_that_the_system_grants(monkeypatch):
    """Others would seem to use the CPUs of threads that do not exist."""
    monkeypatch.setattr(ops, "granted_threads", lambda count: 1)
    monkeypatch.setattr(cost, "cpu_share", lambda count: 1 / count)
    monkeypatch.setattr("qwenvis.concurrency.threads.available", lambda: 4)
    monkeypatch.setenv("QWENVIS_NUM_THREADS", "4")
    assert words("load").endswith("; products got 100% of 1 CPU: the machine is free")


def test_system_without_a_load(monkeypatch):
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert words("load").startswith("load average unknown; products got ")


def test_no_speed_is_above_its_peak():
    assert units.speed(201e9, 210e9) == "201 GFLOP/s, 96% of the peak"
    assert units.speed(201e9, 113e9) == "201 GFLOP/s, above the measured peak: other programs were running"
