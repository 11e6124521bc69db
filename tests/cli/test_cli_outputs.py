"""What the command line writes, and where; what it refuses before anything is computed."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import qwenvis
from made.presets import checkpoint
from qwenvis import cli
from qwenvis.sources import synthetic

TINY = "synthetic:tiny-qwen2-vl"
BYTES = os.fsdecode(b"caf\xe9")  # no UTF-8


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with one picture; no checkpoint may be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "_write", pytest.fail)
    Image.fromarray(np.zeros((61, 97, 3), np.uint8)).save(tmp_path / "small.jpg")
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command line: (exit code, stdout, stderr)."""

    def run(*words):
        code = cli.main(words)
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", ["x.npy", "x.NPZ", "x.pt", "x.bin", "x.json", "x.csv", "x.parquet", "x.h5"])
def test_other_formats_are_refused(run, folder, name):
    code, out, err = run("encode", "small.jpg", "--model", TINY, "-o", name)
    assert (code, out) == (1, "")
    assert f"tokens are written as safetensors, not {name[1:].lower()}" in err
    assert ("np.save(path, out.embeddings)" in err) == (name in ("x.npy", "x.NPZ"))
    assert [path.name for path in folder.iterdir()] == ["small.jpg"]


@pytest.mark.parametrize(
    "words",
    [
        ("encode", "small.jpg", "--model", TINY, "-o", "-"),
        ("demo", "small.jpg", "--model", TINY, "-o", "-"),
        ("pack", TINY, "-"),
    ],
    ids=lambda words: words[0],
)
def test_a_dash_is_no_file(run, folder, words):
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert "'-' is not a file name, and nothing is written to stdout" in err
    assert [path.name for path in folder.iterdir()] == ["small.jpg"]


@pytest.mark.parametrize("command", [("encode", "small.jpg", "--model", TINY), ("info", TINY, "small.jpg"), ("info",)])
def test_a_rule_that_is_not_known_is_refused(run, command):
    code, out, err = run(*command, "--sampling", "x")
    assert (code, out) == (2, "")
    assert "'x' is not one of natural, transformers, qwen-vl-utils, all" in err


@pytest.mark.parametrize("command", [("encode", "small.jpg", "--model", TINY), ("info", TINY, "small.jpg"), ("info",)])
@pytest.mark.parametrize("option", [("--fps", "2"), ("--num-frames", "4"), ("--sampling", "all")], ids=str)
def test_rules_for_videos_want_a_video(run, command, option):
    code, out, err = run(*command, *option)
    assert (code, out) == (1, "")
    assert err == f"qwenvis: {option[0]} would choose the frames of videos, but there is no video\n"


def test_names_that_are_no_utf8(run, folder):
    """The provenance has them as they are."""
    shutil.copytree(checkpoint(), folder / BYTES)
    (folder / "small.jpg").rename(f"{BYTES}.jpg")
    assert run("encode", f"{BYTES}.jpg", "--model", BYTES, "-o", f"{BYTES}.safetensors")[0] == 0
    out = qwenvis.Embeddings.load(f"{BYTES}.safetensors")
    assert (out.provenance["source"], out.sources) == (str(Path(BYTES).absolute()), [f"{BYTES}.jpg"])
    assert os.fsencode(out.provenance["source"]).endswith(b"/caf\xe9")
