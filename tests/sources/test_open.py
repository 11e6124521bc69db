"""What a caller may name as a source, and the way from there to the first header: short, and with one tower built."""

import itertools
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from made import mmproj_files
from made.checkpoints import write_shards
from made.presets import checkpoint as preset_of
from made.presets import materialise
from made.resaved import config_of, save, tensors_of
from qwenvis import Encoder, cli, models, sources
from qwenvis.errors import CheckpointError, InputError, SourceError, quoted

FAMILY, REPO = "qwen2_vl", "org/name"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder, and empty caches."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_hub(folder, write):
    """A Hub id of a snapshot in the cache, whose files ``write`` writes."""
    repo = folder / "hub" / f"models--{REPO.replace('/', '--')}"
    write(repo / "snapshots" / ("c" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("c" * 40)
    return REPO


def packed(folder):
    Encoder.from_pretrained(preset_of(FAMILY), threads=1).save_packed(folder / "packed")
    return folder / "packed"


def mmproj(path):
    vision_config = config_of(FAMILY)["vision_config"]
    path.parent.mkdir(parents=True, exist_ok=True)
    return mmproj_files.write_tower(path, FAMILY, tensors_of(FAMILY), vision_config)


def single(folder):
    tensors = {f"visual.{name}": array for name, array in tensors_of(FAMILY).items()}
    return save(folder / "single", tensors, config_of(FAMILY))


KINDS = {
    "shards": lambda folder: preset_of(FAMILY),
    "single": single,
    "packed": packed,
    "mmproj": lambda folder: mmproj(folder / "mmproj.gguf"),
    "hub": lambda folder: in_hub(folder, lambda path: shutil.copytree(preset_of(FAMILY), path)),
    "hub file": lambda folder: in_hub(folder, lambda path: mmproj(path / "x.gguf")) + "/x.gguf",
    "synthetic": lambda folder: "synthetic:tiny-qwen2-vl",
    "synthetic, written": lambda folder: materialise("tiny-qwen2-vl") and "synthetic:tiny-qwen2-vl",
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def modules_at_the_first_header(call):
    """The modules of the package that are at work when a file of weights is first read, from the outermost inwards."""
    found = []

    def profile(frame, event, called):
        name = str(getattr(getattr(called, "__self__", None), "name", ""))
        if found or event != "c_call" or called.__name__ != "read" or not name.endswith((".safetensors", ".gguf")):
            return
        while frame is not None:
            found.insert(0, frame.f_globals["__name__"])
            frame = frame.f_back

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(dict.fromkeys(name for name in found if name.split(".")[0] == "qwenvis"))


@each_kind
def test_three_rooms_from_the_encoder_to_the_first_header(folder, kind):
    source = KINDS[kind](folder)
    rooms = modules_at_the_first_header(lambda: Encoder.from_pretrained(source, threads=1, dtype="auto"))
    assert rooms[0] == "qwenvis.encoder"
    assert 2 <= len(rooms) <= 3, rooms


@each_kind
@pytest.mark.parametrize("command", ["from_pretrained", "info", "pack"])
def test_a_tower_is_built_once(folder, monkeypatch, kind, command):
    source, built, family = KINDS[kind](folder), [], models.FAMILIES[FAMILY]

    def tower(config, weights):
        built.append(config)
        return family.tower(config, weights)

    monkeypatch.setitem(models.FAMILIES, FAMILY, family._replace(tower=tower))
    if command == "from_pretrained":
        Encoder.from_pretrained(source, threads=1, dtype="auto")
    else:
        target = [str(folder / "out")] if command == "pack" else []
        assert cli.main([command, str(source), *target, "--dtype", "auto"]) == 0
    assert len(built) == 1


@each_kind
def test_a_checkpoint_knows_how_to_open_itself_again(folder, monkeypatch, kind):
    """From another directory too."""
    checkpoint = sources.open(KINDS[kind](folder))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    again = sources.open(**checkpoint.source)
    assert (again.source, again.config, again.shapes) == (checkpoint.source, checkpoint.config, checkpoint.shapes)
    assert again.path.samefile(checkpoint.path) if kind != "synthetic" else again.path == checkpoint.path


def test_packed_tensors_cannot_be_loaded(folder):
    checkpoint = sources.open(KINDS["packed"](folder))
    with pytest.raises(CheckpointError, match="are packed; load those of the checkpoint that was packed"):
        checkpoint.load([])


@each_kind
def test_every_stored_tensor_knows_its_bytes(folder, kind):
    """File, offset and length: with no reader of ours, they are those that the reader returns."""
    if kind == "packed":
        pytest.skip("its tensors have become packed weights")
    checkpoint = sources.open(KINDS[kind](folder))
    checkpoint.prepare()
    stored = [part.stored for tensor in checkpoint.tensors.values() for part in tensor.parts]
    contents = {file: file.read_bytes() for file in checkpoint.files}
    spans = sorted((each.file.path, each.offset, each.offset + each.nbytes) for each in stored)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in itertools.pairwise(spans))
    sizes = {"F32": 4, "BF16": 2}
    for each in stored:
        assert len(contents[each.file.path][each.offset : each.offset + each.nbytes]) == each.nbytes
        assert each.nbytes == sizes[each.dtype] * int(np.prod(each.shape))
    assert checkpoint.nbytes == sum(each.nbytes for each in stored)


def found(source, **options):
    """The path of the checkpoint that a source opens as."""
    return sources.open(source, **options).path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_directory_is_itself(tmp_path, kind):
    write_shards(tmp_path / "Qwen" / "model")
    assert found(kind(tmp_path / "Qwen" / "model")) == tmp_path / "Qwen" / "model"
    assert found(kind("Qwen/model")) == Path("Qwen/model")


def test_a_directory_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_shards(tmp_path / "model")
    assert found("~/model") == tmp_path / "model"


def test_a_preset(tmp_path):
    """Nothing is written."""
    assert found("synthetic:tiny-qwen2-vl", cache_dir="cache").parent == tmp_path / "cache"
    assert not list(tmp_path.iterdir())


def test_an_unknown_preset():
    with pytest.raises(SourceError, match=r"no preset 'tiny'; presets are written as synthetic:tiny-"):
        found("synthetic:tiny")


@pytest.mark.parametrize(
    "source",
    [
        "nonsense",
        " ",
        "a/b/c",
        "a/..",
        "../b",
        "a--b/c",
        "-a/b",
        "a/b ",
        "x" * 5000,
        "a\0b",
        "http://a/b",
        "~nobody-x/y",
    ],
)
def test_what_is_nothing_is_told_what_was_looked_for(source):
    with pytest.raises(SourceError) as caught:
        found(source)
    message = str(caught.value)
    assert message.startswith(f"{quoted(source)} names no checkpoint: ")
    assert re.search(r"is not a directory|it is a URL|cannot be read: (embedded|File name too long)", message)
    assert "; a Hub id is ORG/NAME" in message
    assert "://" in source or "; presets are written as synthetic:" in message
    assert message.isprintable()


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(SourceError, match=r"model\.safetensors' is a file; name the directory that holds it"):
        found("model.safetensors")


@pytest.mark.parametrize("source", ["synthetic:tiny-qwen2-vl", "org/name"])
@pytest.mark.parametrize("cache_dir", [5, "a\0b", ["list"]])
def test_what_is_no_cache(source, cache_dir):
    with pytest.raises(InputError, match="cache_dir is "):
        sources.open(source, cache_dir=cache_dir)


@pytest.mark.parametrize("source", [None, 3, b"bytes", ["list"]])
def test_what_is_no_source(source):
    expected = r"expected a directory, a \.gguf file, a Hub id or "
    with pytest.raises(InputError, match=f"source is a {type(source).__name__}; {expected}"):
        found(source)


def test_an_empty_text_is_not_the_working_directory():
    with pytest.raises(InputError, match=r"source is empty; expected a directory, a \.gguf file, "):
        found("")
    with pytest.raises(SourceError, match=r"holds no config\.json"):
        found(".")


def test_a_gguf_file_is_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mmproj.gguf", "MMPROJ.GGUF"):
        mmproj_files.write_smallest(tmp_path / name)
        assert found(name) == Path(name)
        assert found(f"~/{name}") == tmp_path / name


@pytest.mark.parametrize("source", ["mmproj.gguf", "a/mmproj.gguf", "a/../b/c.gguf", "a/b/../c.gguf", "/a/b/c.gguf"])
def test_p20_what_is_no_gguf_file(source):
    with pytest.raises(SourceError, match=r"names no checkpoint: .* is not a file"):
        found(source)
