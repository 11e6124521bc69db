"""Whatever lies under the name of an item, a cache gives the tokens of its key or none, and a put replaces it."""

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from made.embeddings import equal, item, key, made
from qwenvis import Cache, CacheWarning, Embeddings
from qwenvis.cache.file import PAGE, checksum

KEY = key(0)
WIDE = made(embeddings=np.ones((11, 5000), np.float32), hidden_states=[])[1]
STORED = replace(made()[1], hidden_states=[])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Do not wait for the disk, which may be slow."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def cache(tmp_path):
    cache = Cache(tmp_path / "tokens")
    cache.put(KEY, STORED)
    return cache


def change_bytes(change):
    """Damage that changes the bytes of the file."""

    def damage(path):
        path.write_bytes(change(path.read_bytes()))

    return damage


def change_parts(change):
    """Damage that changes tensors and metadata, and leaves a file that safetensors reads."""

    def damage(path):
        tensors = safetensors.numpy.load_file(path)
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
        change(tensors, metadata)
        safetensors.numpy.save_file(tensors, path, metadata)

    return damage


def anew(make):
    """Another kind of file in place of the file."""

    def damage(path):
        path.unlink()
        make(path)

    return damage


def other_key(path):
    cache = Cache(path.parent)
    cache.put(key(1), STORED)
    (path.parent / f"{key(1)}.safetensors").replace(path)


def negate(tensors, _):
    tensors["deepstack.2"][0, 0] *= -1


DAMAGES = {
    "empty": change_bytes(lambda _: b""),
    "truncated": change_bytes(lambda data: data[:-1]),
    "half": change_bytes(lambda data: data[: len(data) // 2]),
    "longer": change_bytes(lambda data: data + b"\0"),
    "text": change_bytes(lambda _: b"no safetensors file at all"),
    "a header without end": change_bytes(lambda data: b"\xff" * 7 + b"\x7f" + data[8:]),
    "a flipped bit": change_bytes(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "zeros": change_bytes(lambda data: data[:-40] + b"\0" * 40),
    "a sign": change_parts(negate),
    "another time": change_parts(lambda tensors, _: tensors["timestamps"].__setitem__(0, 7.0)),
    "no deepstack": change_parts(lambda tensors, _: [tensors.pop(f"deepstack.{i}") for i in range(3)]),
    "other sizes": change_parts(lambda tensors, _: tensors["sizes"].__iadd__(1)),
    "another source": change_parts(lambda _, metadata: metadata.update(sources=json.dumps(["b.jpg"]))),
    "other provenance": change_parts(lambda _, metadata: metadata.update(format="bf16")),
    "another item's key": change_parts(lambda _, metadata: metadata.update(keys=json.dumps([key(5)]))),
    "no checksum": change_parts(lambda _, metadata: metadata.pop("cache_checksum")),
    "another key": other_key,
    "saved by hand": anew(STORED.save),
    "a named pipe": anew(os.mkfifo),
    "a link to nothing": anew(lambda path: path.symlink_to("nowhere")),
    "a device": anew(lambda path: path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_a_miss_and_is_replaced(cache, damage):
    cache.put(key(2), item(2))
    path = cache.directory / f"{KEY}.safetensors"
    damage(path)
    before = path.lstat().st_mtime_ns
    assert cache.get(KEY) is None
    assert cache.verify() == [KEY]
    assert path.lstat().st_mtime_ns == before  # not used
    assert {each.key for each in cache} >= {key(2)}
    cache.put(KEY, STORED)
    equal(cache.get(KEY), STORED)
    damage(path)
    assert cache.verify(remove=True) == [KEY]
    assert (cache.verify(), len(cache), os.path.lexists(path)) == ([], 1, False)


def test_a_directory_under_the_name(cache):
    path = cache.directory / f"{KEY}.safetensors"
    path.unlink()
    (path / "in").mkdir(parents=True)
    assert (cache.get(KEY), cache.verify(), list(cache), cache.prune(0)) == (None, [KEY], [], 0)
    with pytest.warns(CacheWarning, match="Is a directory"):
        cache.put(KEY, STORED)
    assert sorted(cache.directory.iterdir()) == [path]


def test_every_byte_of_a_file_counts(cache):
    """A byte is changed, every third in turn; only a byte of the header that JSON does not need may go unnoticed."""
    path = cache.directory / f"{KEY}.safetensors"
    data = path.read_bytes()
    unnoticed = 0
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        if (got := cache.get(KEY)) is not None:
            equal(got, STORED)
            unnoticed += 1
    assert unnoticed <= 8  # the spaces that pad the header


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_checksum_finds_damage_of_a_page(dtype):
    """A page of zeros, of noise, or shifted; two pages that change places; a bit anywhere."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 8 * PAGE * 6 + 44, np.uint8)

    def of(data):
        tokens = data.view(dtype).reshape(1, -1)
        return checksum(KEY, Embeddings(tokens, np.array([[1, 2, 2]]), 2))

    pages = [slice(8 * PAGE * i, 8 * PAGE * (i + 1)) for i in range(6)]
    found = {of(data)}
    for page in pages:
        for filling in (0, rng.integers(0, 256, 8 * PAGE, np.uint8), np.roll(data[page], 8)):
            changed = data.copy()
            changed[page] = filling
            found.add(of(changed))
    for first, second in pairwise(pages):
        changed = data.copy()
        changed[first], changed[second] = data[second], data[first]
        found.add(of(changed))
    places = [*range(0, len(data), 997), *range(len(data) - 44, len(data))]
    for place in places:
        changed = data.copy()
        changed[place] ^= 128
        found.add(of(changed))
    assert len(found) == 1 + 3 * 6 + 5 + len(places)
    assert of(data.copy()) in found


def test_a_key_belongs_to_the_checksum():
    assert checksum(KEY, STORED) == checksum(KEY, STORED) != checksum(key(1), STORED)


def test_an_item_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, flush, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("flush") or flush(file))
    monkeypatch.setattr(Path, "replace", lambda old, new: done.append(new.parent == tmp_path) or replace(old, new))
    Cache(tmp_path).put(KEY, STORED)
    assert done == [False, "flush", True]  # within the draft, flushed, with its name
