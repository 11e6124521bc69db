"""The study of int8 runs, on a tiny tower, and its injections and simulations are what they are said to be."""

import importlib
import json
import sys
from argparse import Namespace

import numpy as np
import pytest

from house.source_files import ROOT
from qwenvis import Encoder, ops

TINY = "tiny-qwen2-vl"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """The repository's root on the path, and checkpoints in a directory of the tests."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path_factory.getbasetemp() / "benchmarks"))


def study(outliers):
    """The study of a tiny tower."""
    module = importlib.import_module("benchmarks.int8")
    arguments = Namespace(model=f"synthetic:{TINY}", blocks=None, case="224", threads=1)
    return module.Study(arguments, outliers)


@pytest.mark.parametrize("outliers", ["gains", "lognormal", "values"])
def test_compensated_outliers_change_no_token(outliers):
    """Their factors cancel, but for the rounding of factors that are no powers of two."""
    plain = study("none").reference
    assert np.abs(study(outliers).reference - plain).max() < 1e-5 * np.abs(plain).max()


@pytest.mark.parametrize("outliers", ["stream", "hidden-alone", "heavy", "massive"])
def test_other_outliers_change_tokens(outliers):
    plain = study("none").reference
    assert np.abs(study(outliers).reference - plain).max() > 1e-2 * np.abs(plain).max()


def test_balance_and_rotation_bear_all_outliers():
    """The claims of docs/int8.md: both together keep the error of the plain tower, neither alone does."""
    errors = {name: study("none").deviation(name).relative_rms for name in ("rounding", "balance-h128")}
    assert 0.5 < errors["balance-h128"] / errors["rounding"] < 1.2
    outliers = study("all")
    assert outliers.deviation("balance-h128").relative_rms < 1.5 * errors["balance-h128"]
    assert outliers.deviation("h128").relative_rms > 5 * errors["balance-h128"]
    heavy = study("heavy")
    assert heavy.deviation("balance").relative_rms > 1.1 * heavy.deviation("balance-h128").relative_rms


def test_the_simulation_predicts_int8():
    """Where the CPU multiplies bytes, the error of int8 is that of the simulated scheme."""
    if "i8" not in ops.formats() or ops.formats()["i8"].expanded:
        pytest.skip("this CPU does not multiply bytes")
    plain = study("none")
    ratio = plain.deviation("int8").relative_rms / plain.deviation("balance-h128").relative_rms
    assert 0.8 < ratio < 1.25


def test_q8_0_is_what_the_package_of_llama_cpp_makes_of_a_weight():
    gguf = pytest.importorskip("gguf")
    scheme = importlib.import_module("benchmarks.simulation").SCHEMES["q8_0"]
    w = np.random.default_rng(0).standard_normal((40, 96), dtype=np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    assert np.array_equal(scheme.round_weight(w), gguf.dequantize(gguf.quantize(w, kind), kind))


def test_blocks_do_not_bear_outliers():
    """The claim of docs/int8.md: better than int8 on a plain tower, worse by far where channels are outliers."""
    names = "balance-h128", "q8_0"
    plain, outliers = (
        {name: found.deviation(name).relative_rms for name in names} for found in map(study, ("none", "all"))
    )
    assert plain["q8_0"] < plain["balance-h128"]
    assert outliers["q8_0"] > 2 * outliers["balance-h128"]


@pytest.mark.parametrize("block", [16, 64, 128])
def test_rotation_keeps_products(block):
    """Rotated rows and weights have the products that they had, at any K."""
    scheme = importlib.import_module("benchmarks.simulation").Scheme(rotation=block)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((rows, 200), dtype=np.float32) for rows in (3, 5))
    np.testing.assert_allclose(scheme.rotate(x) @ scheme.rotate(w).T, x @ w.T, atol=1e-4)


def test_command(monkeypatch, capsys, tmp_path):
    module = importlib.import_module("benchmarks.int8")
    file = tmp_path / "out.json"
    names = ["bfloat16", *(f"bfloat16+{part}" for part in module.PARTS)]
    options = ["--blocks", "2", "--outliers", "none", "gains", "--contenders", *names, "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["int8", "--model", f"synthetic:{TINY}", "--threads", "1", *options])
    module.main()
    printed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-2 * len(names) :]]
    assert printed == [[outliers, name] for outliers in ("none", "gains") for name in names]
    errors = [row["relative_rms"] for row in json.loads(file.read_text())["rows"]]
    assert 0 < errors[0] < 0.02
    assert errors[: len(names)] == errors[:1] * len(names)  # parts in the format that the others have


def test_written_outliers_replace_nothing(monkeypatch, capsys, tmp_path):
    module = importlib.import_module("benchmarks.outliers")
    monkeypatch.setattr(sys, "argv", ["outliers", str(tmp_path), "--model", f"synthetic:{TINY}"])
    with pytest.raises(SystemExit):
        module.main()
    assert f"{tmp_path} already exists; name a new directory" in capsys.readouterr().err


def test_written_outliers_are_those_of_the_study(monkeypatch, tmp_path):
    """A checkpoint with outliers has the tokens of the tower into which they were injected."""
    module, expected = importlib.import_module("benchmarks.outliers"), study("all").reference
    monkeypatch.setattr(sys, "argv", ["outliers", str(tmp_path / "all"), "--model", f"synthetic:{TINY}"])
    module.main()
    encoder = Encoder.from_pretrained(tmp_path / "all", threads=1)
    inputs = importlib.import_module("benchmarks.encoder").inputs(encoder, [(1, 16, 16)])
    np.testing.assert_array_equal(encoder(*inputs).embeddings, expected)
