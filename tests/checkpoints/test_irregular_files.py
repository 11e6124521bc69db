"""Files of a checkpoint that are no files, or that may not be read: typed errors, at once."""

import os
import shutil
import tempfile
from pathlib import Path
from unittest.mock import mock_open

import pytest

from made.checkpoints import INDEX
from made.presets import checkpoint as preset_of
from processes.programs import output
from qwenvis import CheckpointError, Embeddings, Encoder, InputError, SourceError, cli
from qwenvis.spec import ModelSpec

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes"),
]

TYPED = (CheckpointError, SourceError)
FILES = [
    "config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "packed.safetensors",
    "model-00001-of-00003.safetensors",
]


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(preset_of("qwen2_vl"), tmp_path / "copy"))


def piped(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("name", FILES)
def test_a_named_pipe_in_a_directory(copied, name, capsys):
    piped(copied / name)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: not a regular file but a named pipe"):
        Encoder.from_pretrained(copied)
    assert cli.main(["info", str(copied)]) == 1
    assert "a named pipe" in capsys.readouterr().err


def test_a_named_pipe_as_a_file_of_tokens(tmp_path):
    piped(tmp_path / "tokens.safetensors")
    (tmp_path / "link").symlink_to("tokens.safetensors")
    for name in ("tokens.safetensors", "link"):
        with pytest.raises(InputError, match=f"{name} holds no embeddings: .* a named pipe"):
            Embeddings.load(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_a_named_pipe_behind_a_link(copied, name):
    piped(copied / "pipe")
    (copied / name).unlink(missing_ok=True)
    (copied / name).symlink_to("pipe")
    with pytest.raises(CheckpointError, match="a named pipe"):
        ModelSpec.open(copied)


def test_a_named_pipe_as_an_mmproj(tmp_path, capsys):
    piped(tmp_path / "x.gguf")
    with pytest.raises(CheckpointError, match=r"x\.gguf cannot be read as GGUF: not a regular file but a named pipe"):
        Encoder.from_pretrained(tmp_path / "x.gguf")
    assert cli.main(["info", str(tmp_path / "x.gguf")]) == 1
    assert "a named pipe" in capsys.readouterr().err


@pytest.fixture
def cached(tmp_path):
    """A Hub cache with one snapshot of a tiny checkpoint, and that snapshot."""
    repo, commit = tmp_path / "models--a--b", "c" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    return tmp_path, Path(shutil.copytree(preset_of("qwen2_vl"), repo / "snapshots" / commit))


@pytest.mark.parametrize("name", [name for name in FILES if name != "packed.safetensors"])
def test_a_named_pipe_in_the_cache(cached, name):
    cache, snapshot = cached
    assert ModelSpec.open("a/b", cache_dir=cache).family == "qwen2_vl"
    piped(snapshot / name)
    with pytest.raises(CheckpointError, match="a named pipe"):
        ModelSpec.open("a/b", cache_dir=cache)


@pytest.mark.parametrize("name", ["refs/main", "snapshots/" + "c" * 40 + "/x.gguf"])
def test_a_named_pipe_as_a_revision_or_a_file_of_the_cache(cached, name):
    cache, _ = cached
    piped(cache / "models--a--b" / name)
    with pytest.raises(TYPED, match="a named pipe"):
        ModelSpec.open("a/b/x.gguf", cache_dir=cache)


@pytest.mark.parametrize("link", ["/dev/zero", "/dev/full", "/proc/self/mem"])
def test_a_device_behind_a_link(copied, link):
    (copied / "config.json").unlink()
    (copied / "config.json").symlink_to(link)
    with pytest.raises(CheckpointError, match=r"config\.json (cannot be read: |is a link to )"):
        ModelSpec.open(copied)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("target", ["nowhere", "tokenizer.json/x"])
def test_a_link_to_nothing(copied, name, target):
    """Without a config that was meant to be there, another one would be taken in its place."""
    (copied / name).unlink(missing_ok=True)
    (copied / name).symlink_to(target)
    (copied / "tokenizer.json").touch()
    with pytest.raises(CheckpointError, match=rf"{name} is a link to {target}, which is not here"):
        ModelSpec.open(copied)


def test_a_ref_that_has_nothing_to_tell_yet(cached, monkeypatch):
    """Files of /proc that do not wait."""
    cache, _ = cached
    monkeypatch.setattr("qwenvis.sources.hub.open_regular", lambda path: mock_open(read_data=None)())
    with pytest.raises(SourceError, match="holds no snapshot of its revision main"):
        ModelSpec.open("a/b", cache_dir=cache)


def of_nobody(source, cache="/nowhere"):
    """What somebody who owns nothing is told of a source."""
    return output(f"""
        import os
        from qwenvis import QwenvisError; from qwenvis.sources import presets
        from qwenvis.spec import ModelSpec
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            ModelSpec.open({str(source)!r}, cache_dir={str(cache)!r})
        except QwenvisError as error:
            print(type(error).__name__, error)
    """)


@pytest.fixture
def readable():
    """A directory that everybody may look into, in which a test closes what it tests."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        directory = Path(shutil.copytree(preset_of("qwen2_vl"), Path(name) / "copy"))
        directory.chmod(0o755)
        yield directory
        directory.chmod(0o755)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", INDEX, "model-00001-of-00003.safetensors"])
def test_a_file_that_may_not_be_read(readable, name):
    (readable / name).chmod(0)
    assert f"CheckpointError {readable / name} cannot be read: Permission denied" in of_nobody(readable)


@pytest.mark.parametrize("mode", [0, 0o600])
def test_a_directory_that_may_not_be_read(readable, mode):
    readable.chmod(mode)
    assert f"CheckpointError {readable}/config.json cannot be read: Permission denied" in of_nobody(readable)


def test_a_directory_that_may_not_be_listed(readable):
    (readable / INDEX).unlink()
    readable.chmod(0o711)
    assert f"CheckpointError {readable} cannot be read: Permission denied" in of_nobody(readable)


def test_a_directory_in_one_that_may_not_be_entered(readable):
    readable.chmod(0)
    assert "cannot be read: Permission denied" in of_nobody(readable / "below")
    assert "cannot be read: Permission denied" in of_nobody(readable / "x.gguf")


def test_a_cache_that_may_not_be_read(readable):
    (readable / "models--a--b" / "refs").mkdir(parents=True)
    (readable / "models--a--b").chmod(0)
    assert "refs/main, which names a commit, cannot be read: Permission denied" in of_nobody("a/b", readable)
    (readable / "models--a--b").chmod(0o755)
