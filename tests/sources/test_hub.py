"""The local cache of the Hugging Face Hub, where requests are forbidden: a file that is not here is named."""

import itertools
import os
import shlex
import socket

import pytest

from made import mmproj_files
from made.checkpoints import INDEX, SHARDS, tower, write_json, write_shards, write_single
from qwenvis import sources
from qwenvis.errors import CheckpointError, SourceError
from qwenvis.sources import caches

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
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path / "qwenvis"))
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
        sources.open(*arguments, **options)
    message = str(caught.value)
    words = next(shlex.split(line) for line in message.splitlines() if line.startswith("  hf download "))
    assert words[:3] == ["hf", "download", REPO]
    return [word for option, word in itertools.pairwise(words) if option == "--include"], message


def found(source, **options):
    """The path of the checkpoint that a source opens as."""
    return sources.open(source, **options).path


@pytest.mark.parametrize("write", [write_shards, lambda path: write_single(path, tower())])
def test_a_snapshot(cache, write):
    snapshot = snapshot_of(cache, write)
    assert found(REPO) == snapshot
    assert sources.open(REPO).prefix == "visual."


def test_a_snapshot_without_the_language_model(cache):
    snapshot = snapshot_of(cache, write_shards)
    (snapshot / SHARDS[2]).unlink()
    assert found(REPO) == snapshot


def test_revisions(cache):
    older = snapshot_of(cache, write_shards, OLDER, "refs/pr/7")
    newer = snapshot_of(cache, write_shards)
    assert found(REPO) == found(REPO, revision="main") == found(REPO, revision=COMMIT) == newer
    assert found(REPO, revision="refs/pr/7") == found(REPO, revision=OLDER) == older
    patterns, message = refused(REPO, revision="v2")
    assert patterns == [*CONFIGS, "*.safetensors"]
    assert "holds no snapshot of its revision v2" in message
    assert message.splitlines()[-1].endswith(' --revision "v2"')


@pytest.mark.parametrize("revision", ["../../secret", "/etc", "", "a b", '"; id', "-x", "x" * 300])
def test_p20_hostile_revisions(cache, revision):
    snapshot_of(cache, write_shards)
    with pytest.raises(SourceError, match=rf"is not a revision of {REPO}; expected a branch, a tag or a commit"):
        found(REPO, revision=revision)


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
        f"{REPO} is not a directory here, and the Hugging Face cache {cache} holds no snapshot of its revision main. "
        "Nothing is downloaded, because HF_HUB_OFFLINE is set.",
        f"To fetch the files that hold the tower (and every shard, because {INDEX}, which lists the shards "
        "of the tower, is not here yet):",
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
    with pytest.raises(CheckpointError, match="holds no tower"):
        sources.open(REPO)
    write_json(snapshot, "config.json", AUDIO)
    with pytest.raises(CheckpointError, match="it is an audio model without a vision tower"):
        sources.open(REPO)


def test_a_model_without_a_tower_need_not_be_fetched(cache):
    """Its config is enough to say so."""
    snapshot = snapshot_of(cache, lambda path: path.mkdir(parents=True) or write_json(path, "config.json", AUDIO))
    assert [path.name for path in snapshot.iterdir()] == ["config.json"]
    with pytest.raises(CheckpointError, match="it is an audio model without a vision tower"):
        sources.open(REPO)


def test_another_cache(tmp_path):
    snapshot = snapshot_of(tmp_path / "my cache", write_shards)
    assert found(REPO, cache_dir=tmp_path / "my cache") == snapshot
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
    assert str(caches.hub_cache()) == expected


AUDIO = {"model_type": "qwen2_audio"}
MMPROJ = f"{REPO}/mmproj-f16.gguf"


def test_a_gguf_file_of_a_snapshot(cache):
    def write(path):
        path.mkdir(parents=True)
        mmproj_files.write_smallest(path / "mmproj-f16.gguf")

    snapshot = snapshot_of(cache, write)
    assert found(MMPROJ) == snapshot / "mmproj-f16.gguf"
    with pytest.raises(SourceError, match=r"mmproj-q8\.gguf is not a file here.* lacks its mmproj-q8\.gguf"):
        found(f"{REPO}/mmproj-q8.gguf")


def test_p20_a_gguf_file_that_leads_out_of_its_snapshot(cache, tmp_path):
    snapshot = snapshot_of(cache, write_shards)
    (tmp_path / "secret").touch()
    (snapshot / "mmproj-f16.gguf").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"mmproj-f16\.gguf is a link to .*secret, outside the checkpoint"):
        found(MMPROJ)


def test_a_gguf_file_that_is_not_here_names_the_line_that_fetches_it(cache):
    with pytest.raises(SourceError) as caught:
        found(MMPROJ, revision="v2")
    assert str(caught.value).splitlines() == [
        f"{MMPROJ} is not a file here, and the Hugging Face cache {cache} holds no snapshot of its revision v2. "
        "Nothing is downloaded, because HF_HUB_OFFLINE is set.",
        "To fetch it:",
        f'  hf download {REPO} mmproj-f16.gguf --revision "v2"',
    ]


@pytest.mark.parametrize("endpoint", ["", "huggingface.co", "ftp://u:hidden@a", "http://[u:hidden@a", "http://a:99999"])
def test_an_endpoint_that_is_no_url(monkeypatch, endpoint):
    """The client cannot be imported with some of them."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(SourceError, match="HF_ENDPOINT is not the URL of a Hub") as caught:
        sources.open(REPO)
    assert "hidden" not in str(caught.value)
