"""What ``qwenvis doctor`` says of this machine, and of what is in its environment."""

import os

import av
import numpy as np
import pytest

from qwenvis import cli, cost, ops
from qwenvis.cli import doctor, units
from qwenvis.nn.formats import DTYPES

VARIABLES = ("QWENVIS_NUM_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


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

    def told():
        code = cli.main(["doctor"])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return told


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
    text = doctor.LINES["formats"]()
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


def test_extras_are_told_with_their_purpose(monkeypatch):
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    assert f"av {av.__version__} with libavcodec {libavcodec}, for videos" in doctor.LINES["extras"]()

    def missing(name):
        raise ImportError(f"nothing is called {name}")

    monkeypatch.setattr(doctor.importlib, "import_module", missing)
    text = doctor.LINES["extras"]()
    assert "no av: pip install 'qwenvis[video]' for videos (nothing is called av)" in text
    assert "no pyarrow: pip install 'qwenvis[arrow]' for Embeddings.to_arrow" in text
    assert "no gguf: pip install 'qwenvis[gguf]'" in text


@pytest.mark.skipif(not ops.openmp, reason="the threads of the pool always sleep")
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OMP_WAIT_POLICY", "", "threads spin for some milliseconds after a loop; beside busy programs set OMP_WAIT_P"),
        ("OMP_WAIT_POLICY", " Passive", "threads sleep between two loops, by OMP_WAIT_POLICY=passive"),
        ("OMP_WAIT_POLICY", "ACTIVE", "threads spin between two loops, by OMP_WAIT_POLICY=active"),
        ("GOMP_SPINCOUNT", "0", "threads sleep between two loops, by GOMP_SPINCOUNT=0"),
        ("GOMP_SPINCOUNT", "20000", "threads spin for a while, then sleep between two loops, by GOMP_SPINCOUNT=20000"),
    ],
)
def test_how_threads_wait(monkeypatch, name, value, told):
    monkeypatch.setattr(doctor, "_openmp", lambda: "201511, /usr/lib/libgomp.so.1")
    monkeypatch.setenv(name, value)
    assert doctor.LINES["waiting"]().startswith(told)
    if name == "GOMP_SPINCOUNT":  # which GCC's runtime looks at first
        monkeypatch.setenv("OMP_WAIT_POLICY", "active")
        assert doctor.LINES["waiting"]().startswith(told)


@pytest.mark.parametrize(
    ("load", "threads", "busy"), [(0.3, 8, False), (1.2, 8, True), (1.2, 4, False), (9.0, 1, True)]
)
def test_load_of_the_machine(monkeypatch, load, threads, busy):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 5.0, 5.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("QWENVIS_NUM_THREADS", str(threads))
    text = doctor.LINES["load"]()
    assert text.startswith(f"{load} of 8 CPUs in the last minute")
    assert ("other programs are running" in text) == busy


def test_system_without_a_load(monkeypatch):
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert doctor.LINES["load"]() == "unknown"


def test_no_speed_is_above_its_peak():
    assert units.speed(201e9, 210e9) == "201 GFLOP/s, 96% of the peak"
    assert units.speed(201e9, 113e9) == "201 GFLOP/s, above the measured peak: other programs were running"
