"""The files of vLLM's encoder cache appear whole, on the disk, or not at all."""

import os
import stat
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from adapters.vllm.results import encoded
from made.presets import same_bits
from qwenvis import InputError
from qwenvis.adapters.vllm import write_cache


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_files(dtype, tmp_path):
    out = encoded("qwen3_vl").astype(dtype)
    files = write_cache(out, tmp_path / "new" / "cache")
    for file, item in zip(files, out, strict=True):
        assert file == tmp_path / "new" / "cache" / item.keys[0] / "encoder_cache.safetensors"
        (tokens,) = load_file(file).values()
        assert same_bits(tokens, item.wide())
    assert len({*files}) == len(out)


def test_files_are_replaced_and_nothing_is_left_beside_them(tmp_path):
    out = encoded("qwen2_vl")
    (file, *_) = write_cache(out, tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert write_cache(out, str(tmp_path))[0].read_bytes() == whole
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [file.name] * len(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(out.keys)


def test_a_directory_that_vllm_has_made_is_used(tmp_path):
    """VLLM makes the directory of an item when it looks for the file."""
    out = encoded("qwen2_vl")
    (tmp_path / out.keys[0]).mkdir()
    assert write_cache(out, tmp_path)[0].is_file()


def test_files_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    done = []
    flush, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(stat.S_ISDIR(os.fstat(file).st_mode)) or flush(file))
    monkeypatch.setattr(Path, "replace", lambda old, new: done.append("renamed") or replace(old, new))
    write_cache(encoded("qwen2_vl")[:1], tmp_path)
    assert done == [False, "renamed", True, True]  # the file; its directory, and the directory of that


def test_a_full_disk(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written: .*No space left"):
        write_cache(encoded("qwen2_vl"), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
