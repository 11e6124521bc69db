"""Sources: directories, presets and the local Hugging Face cache; what is not here is told, never fetched."""

import itertools
import os
import re
import shlex
import socket
from pathlib import Path

import pytest

from made.checkpoints import INDEX, SHARDS, tower, write_json, write_shards, write_single
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.errors import CheckpointError, InputError, SourceError, quoted
from qwenvis.sources import hub, synthetic
from qwenvis.sources.resolve import resolve
from qwenvis.spec import ModelSpec

REPO = "Qwen/Qwen2-VL-2B-Instruct"
COMMIT, OLDER = "a" * 40, "b" * 40
CONFIGS = ["config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json", INDEX]
VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no way out of this machine."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "socket", pytest.fail)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def snapshot_of(cache, write, commit=COMMIT, revision="main", repo=REPO):
    """A snapshot as huggingface_hub leaves it: links into blobs, and a ref with the commit."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    write(snapshot)
    (folder / "blobs").mkdir(exist_ok=True)
    for number, file in enumerate(sorted(snapshot.iterdir())):
        blob = folder / "blobs" / f"{commit[:4]}{number}"
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, snapshot))
    (folder / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    return snapshot


def refused(*arguments, **options):
    """The patterns of the hf line in the error, and the whole error."""
    with pytest.raises(SourceError) as caught:
        resolve(*arguments, **options)
    message = str(caught.value)
    words = next(shlex.split(line) for line in message.splitlines() if line.startswith("  hf download "))
    assert words[:3] == ["hf", "download", REPO]
    return [word for option, word in itertools.pairwise(words) if option == "--include"], message


@pytest.mark.parametrize("kind", [str, Path])
def test_a_directory_is_itself(tmp_path, kind):
    (tmp_path / "Qwen" / "model").mkdir(parents=True)
    assert resolve(kind(tmp_path)) == tmp_path
    assert resolve(kind("Qwen/model")) == Path("Qwen/model")


def test_a_directory_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"


def test_a_preset(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(synthetic, "materialise", lambda *arguments: seen.append(arguments) or tmp_path)
    assert resolve("synthetic:tiny-qwen2-vl", "cache", progress=print) == tmp_path
    assert seen == [("tiny-qwen2-vl", "cache", print)]


def test_an_unknown_preset():
    with pytest.raises(SourceError, match=r"no preset 'tiny'; presets are written as synthetic:tiny-"):
        resolve("synthetic:tiny")


@pytest.mark.parametrize("write", [write_shards, lambda path: write_single(path, tower())])
def test_a_snapshot(cache, write):
    snapshot = snapshot_of(cache, write)
    assert resolve(REPO) == snapshot
    assert Checkpoint.open(snapshot).prefix == "visual."


def test_a_snapshot_without_the_language_model(cache):
    snapshot = snapshot_of(cache, write_shards)
    (snapshot / SHARDS[2]).unlink()
    assert resolve(REPO) == snapshot


def test_revisions(cache):
    older = snapshot_of(cache, write_shards, OLDER, "refs/pr/7")
    newer = snapshot_of(cache, write_shards)
    assert resolve(REPO) == resolve(REPO, revision="main") == resolve(REPO, revision=COMMIT) == newer
    assert resolve(REPO, revision="refs/pr/7") == resolve(REPO, revision=OLDER) == older
    patterns, message = refused(REPO, revision="v2")
    assert patterns == [*CONFIGS, "*.safetensors"]
    assert "holds no snapshot of its revision v2" in message
    assert message.splitlines()[-1].endswith(' --revision "v2"')


@pytest.mark.parametrize("revision", ["../../secret", "/etc", "", "a b", '"; id', "-x", "x" * 300])
def test_p20_hostile_revisions(cache, revision):
    snapshot_of(cache, write_shards)
    with pytest.raises(SourceError, match=rf"is no revision of {REPO}; expected a branch, a tag or a commit"):
        resolve(REPO, revision=revision)


@pytest.mark.parametrize("content", ["../../elsewhere", "", "main", "c" * 40, b"\xff"])
def test_p20_a_ref_that_names_no_snapshot(cache, content):
    snapshot_of(cache, write_shards)
    ref = cache / f"models--{REPO.replace('/', '--')}" / "refs" / "main"
    ref.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert "holds no snapshot of its revision main" in refused(REPO)[1]


def test_an_empty_cache_names_the_line_that_fills_it(cache):
    patterns, message = refused(REPO)
    assert patterns == [*CONFIGS, "*.safetensors"]
    include = " ".join(f'--include "{pattern}"' for pattern in patterns)
    assert message.splitlines() == [
        f"{REPO} is no directory here, and the Hugging Face cache {cache} holds no snapshot of its revision main.",
        f"This fetches the files that hold the tower (and every shard: only {INDEX}, which is not here yet, "
        "tells which of them hold it):",
        f"  hf download {REPO} {include}",
    ]


def test_a_cached_index_names_exactly_the_towers_shards(cache):
    snapshot = snapshot_of(cache, write_shards)
    for shard in SHARDS:
        (snapshot / shard).unlink()
    patterns, message = refused(REPO)
    assert patterns == [*CONFIGS, *SHARDS[:2]]
    assert f"lacks its {SHARDS[0]}, {SHARDS[1]}." in message
    assert "every shard" not in message


def test_a_snapshot_with_a_blob_that_is_gone(cache):
    snapshot = snapshot_of(cache, write_shards)
    (snapshot / SHARDS[1]).resolve().unlink()
    assert f"lacks its {SHARDS[1]}." in refused(REPO)[1]


def test_a_snapshot_without_config(cache):
    snapshot = snapshot_of(cache, lambda path: write_single(path, tower()))
    (snapshot / "config.json").unlink()
    patterns, message = refused(REPO)
    assert patterns == [*CONFIGS, "model.safetensors"]
    assert "lacks its config.json." in message


def test_a_snapshot_of_configs_alone(cache):
    snapshot = snapshot_of(cache, write_shards)
    for file in [INDEX, *SHARDS]:
        (snapshot / file).unlink()
    patterns, message = refused(REPO)
    assert patterns == [*CONFIGS, "*.safetensors"]
    assert f"lacks its {INDEX}." in message


def test_a_snapshot_without_a_tower(cache):
    snapshot = snapshot_of(cache, lambda path: write_single(path, tower(), prefix="x"))
    assert resolve(REPO) == snapshot  # who opens it knows the config, and so what is there instead
    with pytest.raises(CheckpointError, match="holds no tower"):
        ModelSpec.open(REPO)
    write_json(snapshot, "config.json", {"model_type": "qwen2_audio"})
    with pytest.raises(CheckpointError, match="it hears and does not see"):
        ModelSpec.open(REPO)


def test_another_cache(tmp_path):
    snapshot = snapshot_of(tmp_path / "my cache", write_shards)
    assert resolve(REPO, cache_dir=tmp_path / "my cache") == snapshot
    _, message = refused(REPO, cache_dir=tmp_path / "my other cache")
    assert message.endswith(f' --cache-dir "{tmp_path / "my other cache"}"')


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/b"),
        ({"HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({}, "/home/somebody/.cache/huggingface/hub"),
        ({"HF_HOME": "$HOME/hf"}, "/home/somebody/hf/hub"),
        ({"HF_HOME": "~/hf"}, "/home/somebody/hf/hub"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    monkeypatch.delenv("HF_HUB_CACHE")
    for name, value in {"HOME": "/home/somebody", **variables}.items():
        monkeypatch.setenv(name, value)
    assert str(hub.hub_cache()) == expected


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
        resolve(source)
    message = str(caught.value)
    assert message.startswith(f"{quoted(source)} names no checkpoint: ")
    assert re.search(r"is no directory|it is a URL|cannot be read: (embedded|File name too long)", message)
    assert "; a Hub id is ORG/NAME" in message
    assert "://" in source or "; presets are written as synthetic:" in message
    assert message.isprintable()


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(SourceError, match=r"model\.safetensors' is a file; name the directory that holds it"):
        resolve("model.safetensors")


@pytest.mark.parametrize("source", [None, 3, b"bytes", ["list"]])
def test_what_is_no_source(source):
    expected = r"expected a directory, a \.gguf file, a Hub id or "
    with pytest.raises(InputError, match=f"source is a {type(source).__name__}; {expected}"):
        resolve(source)


def test_an_empty_text_is_not_the_working_directory():
    with pytest.raises(InputError, match=r"source is empty; expected a directory, a \.gguf file, "):
        resolve("")
    assert resolve(".") == Path()


MMPROJ = f"{REPO}/mmproj-f16.gguf"


def test_a_gguf_file_is_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mmproj.gguf", "MMPROJ.GGUF"):
        (tmp_path / name).touch()
        assert resolve(name) == Path(name)
        assert resolve(f"~/{name}") == tmp_path / name


def test_a_gguf_file_of_a_snapshot(cache):
    def write(path):
        path.mkdir(parents=True)
        (path / "mmproj-f16.gguf").write_bytes(b"GGUF")

    snapshot = snapshot_of(cache, write)
    assert resolve(MMPROJ) == snapshot / "mmproj-f16.gguf"
    with pytest.raises(SourceError, match=r"mmproj-q8\.gguf is no file here.* lacks its mmproj-q8\.gguf"):
        resolve(f"{REPO}/mmproj-q8.gguf")


def test_p20_a_gguf_file_that_leads_out_of_its_snapshot(cache, tmp_path):
    snapshot = snapshot_of(cache, write_shards)
    (tmp_path / "secret").touch()
    (snapshot / "mmproj-f16.gguf").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"mmproj-f16\.gguf is a link to .*secret, outside the checkpoint"):
        resolve(MMPROJ)


def test_a_gguf_file_that_is_not_here_names_the_line_that_fetches_it(cache):
    with pytest.raises(SourceError) as caught:
        resolve(MMPROJ, revision="v2")
    assert str(caught.value).splitlines() == [
        f"{MMPROJ} is no file here, and the Hugging Face cache {cache} holds no snapshot of its revision v2.",
        "This fetches it:",
        f'  hf download {REPO} mmproj-f16.gguf --revision "v2"',
    ]


@pytest.mark.parametrize("source", ["mmproj.gguf", "a/mmproj.gguf", "a/../b/c.gguf", "a/b/../c.gguf", "/a/b/c.gguf"])
def test_p20_what_is_no_gguf_file(source):
    with pytest.raises(SourceError, match=r"names no checkpoint: .* is no file"):
        resolve(source)
