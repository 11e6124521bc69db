"""``qwenvis cache``: what it lists, prunes and verifies, and what it says of a directory that it cannot use."""

import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from made import presets
from made.embeddings import BYTES, equal, item, key, made
from qwenvis import Cache, Embeddings
from qwenvis.cli import steps, units


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Three items: the last use of number n was at hour n of a day."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # disks are slow
    cache = Cache("tokens")
    for number in range(3):
        cache.put(key(number), item(number))
        when = time.mktime((2026, 1, 2, number, 0, 0, 0, 0, -1))
        os.utime(file(cache, number), (when, when))
    return cache


def file(cache, number):
    return cache.directory / f"{key(number)}.safetensors"


def test_list(run, cache):
    code, lines, err = run("cache list tokens")
    assert (code, err) == (0, "")
    size = units.nbytes(file(cache, 0).stat().st_size)
    assert [line.split() for line in lines] == [
        ["key", "tokens", "size", "last", "use", "source"],
        *([key(n)[:16], "16", *size.split(), "2026-01-02", f"0{n}:00", f"{n}.jpg"] for n in range(3)),
        [],
        ["3", "items,", *units.nbytes(cache.nbytes).split()],
    ]


def test_list_shows_odd_names_and_damage_in_one_line_each(run, cache):
    cache.put(key(0), made(sources=["a\n\x1b[1m.jpg", BYTES, "c"])[0])
    cache.put(key(1), made(sources=["a", BYTES, "c"])[1])
    file(cache, 2).write_bytes(b"damaged")
    _, lines, _ = run("cache list tokens")
    assert len(lines) == 6
    assert {line.split()[-1] for line in lines[1:4]} == {"a\\n\\x1b[1m.jpg", "caf\\udce9.jpg", lines[3].split()[-1]}
    assert any(f"{key(2)[:16]}  damaged  7 bytes" in line for line in lines)


def test_list_as_json(run, cache):
    file(cache, 2).write_bytes(b"damaged")
    code, lines, err = run("cache list tokens --json")
    assert (code, err) == (0, "")
    assert json.loads("\n".join(lines)) == [vars(each) for each in cache]
    assert [vars(each)["tokens"] for each in cache] == [16, 16, None]


def test_prune(run, cache):
    size = cache.nbytes // 3
    code, lines, err = run(f"cache prune tokens --size {size + 1}B")
    assert (code, err) == (0, "")
    assert lines == [f"removed 2 items, {units.nbytes(2 * size)}", f"1 item left, {units.nbytes(size)}"]
    assert [each.key for each in cache] == [key(2)]
    assert run("cache prune tokens --size 1GB")[1][0] == "removed 0 items, 0 bytes"
    assert run("cache prune tokens --size 0")[1][1] == "0 items left, 0 bytes"
    assert run("cache list tokens")[1] == ["key  tokens  size  last use  source", "", "0 items, 0 bytes"]


def test_verify(run, cache):
    assert run("cache verify tokens") == (0, [], "3 items, none damaged\n")
    file(cache, 1).write_bytes(file(cache, 0).read_bytes())
    assert run("cache verify tokens") == (1, [key(1)], "qwenvis: 1 damaged item in tokens; --remove removes them\n")
    assert run("cache verify tokens --remove") == (0, [key(1)], "removed 1 damaged item; 2 items left\n")
    assert run("cache verify tokens") == (0, [], "2 items, none damaged\n")


@pytest.mark.parametrize("action", ["list", "verify", "prune --size 1GB"])
def test_directories_that_are_none(run, cache, tmp_path, action):
    """A typing error makes no directory."""
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        code, lines, err = run(f"cache {action} {name}")
        assert (code, lines, err) == (1, [], f"qwenvis: there is no directory {name}\n")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cache", "required: ACTION"),
        ("cache sing tokens", "invalid choice: 'sing'"),
        ("cache list", "required: DIR"),
        ("cache prune tokens", "required: --size"),
        ("cache prune tokens --size many", "'many' is not a size such as 500MB or 2GiB"),
        ("cache prune tokens --size -1", "'-1' is not a size"),
        ("cache list tokens --jso", "did you mean --json?"),
    ],
)
def test_usage_errors(run, cache, line, said):
    code, lines, err = run(line)
    assert (code, lines) == (2, [])
    assert said in err
    assert len(cache) == 3


@pytest.mark.parametrize("action", ["list", "prune", "verify"])
def test_help_of_each_action(run, action):
    code, lines, _ = run(f"cache {action} --help")
    assert code == 0
    assert lines[0].startswith(f"usage: qwenvis cache {action} ")


# ``qwenvis encode --cache``.

MODEL = "--model synthetic:tiny-qwen3-vl --threads 1"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Three pictures, and a copy of the first in another format."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWENVIS_CACHE", str(presets.cache()))
    for number in range(3):
        Image.fromarray(presets.picture(61, 97, number)).save(f"{number}.png")
    Image.fromarray(presets.picture(61, 97)).save("copy.bmp")


def test_encode_takes_what_the_cache_has(run, pictures):
    first = run(f"encode 0.png 1.png {MODEL} --cache tokens -o first.safetensors")
    again = run(f"encode copy.bmp 2.png 1.png {MODEL} --cache tokens --cache-size 1MB -o again.safetensors")
    plain = run(f"encode copy.bmp 2.png 1.png {MODEL} -o plain.safetensors")
    assert [each[2].splitlines()[1:] for each in (first, again, plain)] == [
        ["0 of 2 items from the cache tokens"],
        ["2 of 3 items from the cache tokens"],
        [],
    ]
    assert again[1] == plain[1]
    equal(*(Embeddings.load(f"{name}.safetensors") for name in ("again", "plain")))
    assert {each.source for each in Cache("tokens")} == {"0.png", "1.png", "2.png"}


def test_encode_keeps_within_the_size(run, pictures):
    run(f"encode 0.png {MODEL} --cache tokens")
    size = Cache("tokens").nbytes
    assert run(f"encode 1.png 2.png {MODEL} --cache tokens --cache-size {size}")[0] == 0
    assert [each.source for each in Cache("tokens")] == ["2.png"]


def test_encode_says_once_that_the_cache_cannot_be_written(run, pictures, monkeypatch):
    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    code, lines, err = run(f"encode 0.png 1.png {MODEL} --cache tokens")
    assert (code, len(lines)) == (0, 2)
    assert err.splitlines()[1:] == [
        "0 of 2 items from the cache tokens",
        f"qwenvis: the cache {Path('tokens').absolute()} cannot be written, so new tokens are not kept: "
        "No space left on device",
    ]


def test_a_cache_that_cannot_be_used_is_an_error_before_anything_is_loaded(run, pictures, monkeypatch):
    monkeypatch.setattr(steps, "prepare", pytest.fail)
    code, lines, err = run(f"encode 1.png {MODEL} --cache 0.png")
    assert (code, lines, err) == (1, [], "qwenvis: the cache 0.png is not a directory\n")


@pytest.mark.parametrize(
    "option", ["--cache-size 1GB", "--cache tokens --cache-size 0", "--cache tokens --cache-size x"]
)
def test_sizes_that_are_no_bound(run, pictures, option):
    code, _, err = run(f"encode 1.png {MODEL} {option}")
    assert (code, Path("tokens").exists()) == (2, False)
    assert "--cache-size" in err
