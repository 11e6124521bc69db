"""A cache returns what was put into it, to the bit, or nothing; and it stays within its bound."""

import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from made.embeddings import BYTES, equal, item, key, made
from qwenvis import Cache, CacheItem, CacheWarning, Embeddings
from qwenvis.errors import InputError

VIDEO = made()[1]  # with deepstack, frames and times


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Do not wait for the disk, which may be slow."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "tokens")


def file(cache, number=0):
    return cache.directory / f"{key(number)}.safetensors"


def names(cache):
    return sorted(path.name for path in cache.directory.iterdir())


def keys(cache):
    return [each.key for each in cache]


def age(cache, *numbers):
    """Set the last uses of items, in this order, an hour ago."""
    for second, number in enumerate(numbers):
        when = file(cache, number).stat().st_mtime - 3600 + second
        os.utime(file(cache, number), (when, when))


@pytest.mark.parametrize(
    "stored", [*made(), *made(frame_indices=[], timestamps=[], second_per_grid_ts=np.zeros(0)), made(deepstack=[])[0]]
)
def test_an_item_comes_back_whole(cache, stored):
    """All of it, except hidden states, to the bit."""
    cache.put(key(0), stored)
    got = cache.get(key(0))
    equal(got, replace(stored, hidden_states=[]))
    assert got.embeddings.flags.writeable
    equal(Cache(cache.directory).get(key(0)), got)


def test_names_that_are_not_text_come_back(cache):
    stored = made(sources=["a.jpg", BYTES, "b.jpg"], provenance={"source": BYTES, "family": "ü"})[1]
    cache.put(key(0), stored)
    got = cache.get(key(0))
    assert (got.sources, got.provenance) == (stored.sources, stored.provenance)


def test_the_file_of_an_item_loads_alone(cache):
    cache.put(key(0), VIDEO)
    loaded = Embeddings.load(file(cache))
    assert loaded.embeddings.tobytes() == VIDEO.embeddings.tobytes()
    assert loaded.provenance.items() > VIDEO.provenance.items()
    assert names(cache) == [file(cache).name]


def test_nothing_under_a_key(cache):
    assert cache.get(key(0)) is None
    assert (len(cache), cache.nbytes, list(cache), cache.verify(), cache.prune()) == (0, 0, [], [], 0)


def test_a_put_replaces(cache):
    cache.put(key(0), item(1))
    cache.put(key(0), item(2))
    assert len(cache) == 1
    equal(cache.get(key(0)), item(2))


@pytest.mark.parametrize(
    "bad", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n", None, 5]
)
def test_a_key_is_a_hash(cache, bad):
    for call in (cache.get, lambda key: cache.put(key, VIDEO)):
        with pytest.raises(InputError, match="expected 64 hexadecimal digits"):
            call(bad)
    assert not names(cache)


@pytest.mark.parametrize("bad", [made(), made()[:0], None, VIDEO.embeddings])
def test_one_item_under_a_key(cache, bad):
    with pytest.raises(InputError, match=r"one item under a key; got (<Embeddings|a \w+$)"):
        cache.put(key(0), bad)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "10GB", None, float("inf")])
def test_a_bound_is_a_positive_integer(tmp_path, bad):
    with pytest.raises(InputError, match="max_bytes is"):
        Cache(tmp_path / "tokens", bad)
    assert not (tmp_path / "tokens").exists()


def test_a_bound_of_numpy(tmp_path):
    assert Cache(tmp_path, np.int64(5)).max_bytes == 5


def test_directories_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    cases = {
        tmp_path / "file": "is not a directory",
        tmp_path / "file" / "in": "Not a directory",
        "a\0b": "cannot be a path",
        5: "expected a path",
        "": "the directory of a cache is ''",
        b"": "the directory of a cache is b''",
    }
    for directory, said in cases.items():
        with pytest.raises(InputError, match=re.escape(said)):
            Cache(directory)


def test_directories_as_callers_write_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache = Cache("a/b")
    assert Cache("~/c").directory == tmp_path / "home" / "c"
    monkeypatch.chdir("/")
    cache.put(key(0), VIDEO)
    assert (tmp_path / "a" / "b" / file(cache).name).is_file()


def test_a_pickle_is_the_path_and_the_bound(cache):
    cache.put(key(0), VIDEO)
    text = pickle.dumps(Cache(cache.directory, 5000))
    other = pickle.loads(text)
    assert (other.directory, other.max_bytes) == (cache.directory, 5000)
    assert repr(other) == f"Cache('{cache.directory}', max_bytes=5000)"
    equal(other.get(key(0)), cache.get(key(0)))


# The bound.


def test_the_least_recently_used_leaves_first(cache):
    for number in range(4):
        cache.put(key(number), item(number))
    size = file(cache).stat().st_size
    age(cache, 2, 0, 3, 1)
    assert keys(cache) == [*map(key, (2, 0, 3, 1))]
    assert cache.get(key(2)) is not None  # the oldest, which is the newest now
    bounded = Cache(cache.directory, 4 * size)
    bounded.put(key(4), item(4))  # room is made for a sixteenth of the bound too
    assert keys(bounded)[:1] == [key(1)]
    assert bounded.prune(2 * size) == 1
    assert {*keys(bounded)} == {key(2), key(4)}


def test_the_bound_holds_after_each_put(tmp_path):
    size = len_of(tmp_path / "one", item(0))
    cache = Cache(tmp_path / "many", 40 * size)
    for number in range(200):
        cache.put(key(number), item(number))
        assert cache.nbytes <= cache.max_bytes
        assert cache.get(key(number)) is not None
    assert len(cache) >= 37  # 40 less a sixteenth


def len_of(directory, stored):
    """The size of the file of an item."""
    cache = Cache(directory)
    cache.put(key(0), stored)
    return cache.nbytes


def test_a_directory_is_not_scanned_at_each_put(tmp_path, monkeypatch):
    cache = Cache(tmp_path, 1000 * len_of(tmp_path / "one", item(0)))
    scans, files = [], Cache._files
    monkeypatch.setattr(Cache, "_files", lambda self: scans.append(1) or files(self))
    for number in range(150):
        cache.put(key(number), item(number))
    assert len(scans) == 1 + 149 // 63  # at the first put, and then for each sixteenth of the bound


def test_an_item_that_fills_the_bound(tmp_path):
    size = len_of(tmp_path / "one", item(0, 4000))
    cache = Cache(tmp_path / "tokens", size)
    for number in range(3):
        cache.put(key(number), item(number))
    cache.put(key(5), item(5, 4000))  # which takes more than 15/16 of the bound
    assert keys(cache) == [key(5)]
    for width in (4100, 4001):  # tokens that exceed the bound, or do so with their header
        cache.put(key(6), item(6, width))
        assert (keys(cache), cache.get(key(6))) == ([key(5)], None)


def test_a_cache_that_is_full_of_an_earlier_bound(cache):
    for number in range(9):
        cache.put(key(number), item(number))
    age(cache, *range(9))
    smaller = Cache(cache.directory, 3 * file(cache).stat().st_size)
    assert smaller.prune() == 6
    assert keys(smaller) == [*map(key, (6, 7, 8))]
    assert smaller.prune(0) == 3
    for bad in (-1, True, "1GB"):
        with pytest.raises(InputError, match="max_bytes"):
            smaller.prune(bad)


def test_other_files_stay(cache):
    cache.put(key(0), VIDEO)
    others = ["notes.txt", f"{key(0)}.json", f"{key(0).upper()}.safetensors", "tokens.safetensors", ".0123456789abcde"]
    for name in others:
        (cache.directory / name).write_text("mine")
    assert (len(cache), cache.prune(0), cache.verify(remove=True)) == (1, 1, [])
    assert names(cache) == sorted(others)


def test_items_as_a_listing(cache):
    for number in range(3):
        cache.put(key(number), item(number))
    age(cache, 0, 2)
    (file(cache, 1)).write_bytes(b"damaged")
    first, _, last = cache
    status = file(cache).stat()
    assert first == CacheItem(key(0), status.st_size, status.st_mtime_ns / 1e9, 16, "0.jpg")
    assert (last.key, last.nbytes, last.tokens, last.source) == (key(1), 7, None, None)
    assert cache.nbytes == 7 + first.nbytes * 2


def test_a_directory_that_is_removed_meanwhile(cache):
    cache.put(key(0), VIDEO)
    file(cache).unlink()
    cache.directory.rmdir()
    assert cache.get(key(0)) is None
    for use in (len, list, Cache.prune, Cache.verify):
        with pytest.raises(InputError, match="there is no such file"):
            use(cache)
    cache.put(key(0), VIDEO)
    equal(cache.get(key(0)), replace(VIDEO, hidden_states=[]))


def test_a_file_in_place_of_the_directory(cache):
    cache.directory.rmdir()
    cache.directory.touch()
    with pytest.warns(CacheWarning, match="cannot be written, so new tokens are not kept: Not a directory"):
        cache.put(key(0), VIDEO)
    assert cache.get(key(0)) is None
