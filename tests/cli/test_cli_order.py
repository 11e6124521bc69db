"""The command line looks at everything that it can before it writes a preset, and opens a checkpoint once."""

import pytest
from PIL import Image

from made.presets import materialise
from qwenvis import cli
from qwenvis.sources import resolve

TINY = "synthetic:tiny-qwen2-vl"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a picture; its cache of synthetic checkpoints is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (97, 61), "red").save(tmp_path / "red.png")
    return tmp_path


@pytest.mark.parametrize("command", ["encode", "demo"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("red.png --dtype int4", "dtype is 'int4'"),
        ("red.png --max-pixels 100", "min_pixels 3136 of the checkpoint is larger"),
        ("red.png --threads 99999", "threads is 99999"),
        ("nowhere.png", "no such file"),
    ],
)
def test_a_wrong_argument_writes_nothing(folder, capsys, command, options, said):
    assert cli.main([command, *options.split(), "--model", TINY]) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["red.png"]


@pytest.mark.parametrize("command", ["encode red.png", "demo red.png --max-pixels 56x56"])
def test_a_checkpoint_is_opened_once(monkeypatch, folder, command):
    directory, opened, original = materialise("tiny-qwen2-vl"), [], resolve.open_shards
    monkeypatch.setattr(resolve, "open_shards", lambda path, *given: opened.append(path) or original(path, *given))
    assert cli.main([*command.split(), "--model", str(directory)]) == 0
    assert opened == [directory]


@pytest.mark.parametrize("option", ["-o", "--output", "--out"])
@pytest.mark.parametrize("name", ["red.webp", "r" * 251 + ".png"])
def test_demo_writes_where_it_is_told(folder, option, name):
    assert cli.main(["demo", "red.png", "--max-pixels", "56x56", "--model", TINY, option, name]) == 0
    assert {path.name for path in folder.iterdir()} == {"red.png", "cache", name}
    with Image.open(folder / name) as page:
        assert page.format == {"w": "WEBP", "p": "PNG"}[name.rpartition(".")[2][0]]
