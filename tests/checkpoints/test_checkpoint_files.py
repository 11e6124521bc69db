"""Files of a checkpoint that are missing, disagree, or lead out of its directory."""

import json
from pathlib import Path

import numpy as np
import pytest

from made.checkpoints import (
    CONFIG,
    INDEX,
    PATCH,
    SHARDS,
    edit_index,
    equal,
    load_all,
    open_directory,
    tower,
    write_json,
    write_shards,
    write_single,
)
from qwenvis.errors import CheckpointError, ConfigError


def test_no_weights(tmp_path):
    write_json(tmp_path, "config.json", CONFIG)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        CheckpointError, match=r"neither model\.safetensors nor .*index\.json; found pytorch_model\.bin"
    ):
        open_directory(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {}}, [], "{"])
def test_an_index_that_is_none(tmp_path, index):
    write_json(tmp_path, "config.json", CONFIG)
    write_json(tmp_path, INDEX, index)
    with pytest.raises(CheckpointError, match=r"index\.json") as caught:
        open_directory(tmp_path)
    assert not isinstance(caught.value, ConfigError)


def test_no_tower(tmp_path):
    names = ["lm_head.weight", "visual.patch_embed.proj.weight_else", "xpatch_embed.proj.weight"]
    with pytest.raises(
        CheckpointError, match=r"holds no tower: .*patch_embed\.proj\.weight or .*; found " + ", ".join(names)
    ):
        open_directory(write_single(tmp_path, {name: np.ones(1, np.float32) for name in names}, prefix=""))


def test_two_towers(tmp_path):
    both = {f"{prefix}.{PATCH}": np.ones(1, np.float32) for prefix in ("visual", "audio")}
    with pytest.raises(CheckpointError, match=rf"holds 2 towers, expected one: audio\.{PATCH}, visual\.{PATCH}"):
        open_directory(write_single(tmp_path, both, prefix=""))


def test_a_missing_shard_is_named_with_what_it_holds(tmp_path):
    write_shards(tmp_path)
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(
        CheckpointError, match=rf"lacks {SHARDS[1]}, which holds .*: visual\.blocks\.0\.attn\.qkv\.weight, "
    ):
        open_directory(tmp_path)


def test_a_missing_shard_of_the_language_model_is_no_matter(tmp_path):
    write_shards(tmp_path)
    (tmp_path / SHARDS[2]).unlink()
    assert equal(load_all(open_directory(tmp_path)), tower())


def test_index_and_shard_must_agree(tmp_path):
    write_shards(tmp_path)
    edit_index(tmp_path, **{"visual.extra": SHARDS[0]})
    with pytest.raises(CheckpointError, match=rf"{SHARDS[0]} lacks tensors .*: visual\.extra"):
        open_directory(tmp_path)
    write_shards(tmp_path)
    edit_index(tmp_path, **{"visual.merger.mlp.0.bias": SHARDS[0]})
    with pytest.raises(CheckpointError, match=rf"{SHARDS[0]} lacks tensors .*: visual\.merger\.mlp\.0\.bias"):
        open_directory(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    del index["weight_map"]["visual.merger.mlp.0.bias"]
    write_json(tmp_path, INDEX, index)
    with pytest.raises(CheckpointError, match=rf"{SHARDS[1]} holds .* not in {INDEX}: visual\.merger\.mlp\.0\.bias"):
        open_directory(tmp_path)


def test_other_formats_outside_the_tower_are_no_matter(tmp_path):
    arrays = {f"visual.{name}": array for name, array in tower().items()} | {"model.qweight": np.ones(4, np.int32)}
    assert equal(load_all(open_directory(write_single(tmp_path, arrays, prefix=""))), tower())


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "sub/model.safetensors",
        "/etc/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "C:\\model.safetensors",
        "\\\\host\\share\\model.safetensors",
        "model\0.safetensors",
        "model.safetensors\0",
        "model.safetensors\n",
        "..",
        ".",
        "",
        ".hidden.safetensors",
        "-rf.safetensors",
        "$(id).safetensors",
        '".safetensors',
        "pytorch_model.bin",
        "\ud800.safetensors",
        "x" * 300 + ".safetensors",
        3,
        None,
        ["model.safetensors"],
    ],
)
def test_p20_hostile_shard_names(tmp_path, name):
    directory = write_shards(tmp_path / "inside")
    write_single(tmp_path, tower())
    edit_index(directory, **{"visual.merger.mlp.0.bias": name})
    with pytest.raises(
        CheckpointError, match=r"index\.json says that visual\.merger.*; expected the plain name"
    ) as caught:
        open_directory(directory)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_p20_links_out_of_the_directory(tmp_path, name):
    directory = write_single(tmp_path / "inside", tower())
    write_json(directory, "preprocessor_config.json", {})
    (directory / name).rename(tmp_path / name)
    (directory / name).symlink_to(tmp_path / name)
    with pytest.raises(
        CheckpointError, match=rf"inside/{name} is a link to .*, outside the checkpoint; copy that file"
    ):
        open_directory(directory)


def test_p20_links_inside_the_directory(tmp_path):
    directory = write_single(tmp_path / "inside", tower())
    (directory / "data").mkdir()
    (directory / "model.safetensors").rename(directory / "data" / "weights")
    (directory / "model.safetensors").symlink_to(Path("data", "weights"))
    (tmp_path / "link").symlink_to(directory, target_is_directory=True)
    assert equal(load_all(open_directory(tmp_path / "link")), tower())


@pytest.mark.parametrize("blobs", ["models--a--b/blobs", "blobs/12"])
def test_p20_links_of_a_hub_snapshot(tmp_path, blobs):
    """Into the repo's own blobs, and into the cache's blobs where huggingface_hub 2 keeps what repos share."""
    snapshot = write_single(tmp_path / "models--a--b" / "snapshots" / ("c" * 40), tower())
    (tmp_path / blobs).mkdir(parents=True)
    (snapshot / "model.safetensors").rename(tmp_path / blobs / "hash")
    (snapshot / "model.safetensors").symlink_to(tmp_path / blobs / "hash")
    assert equal(load_all(open_directory(snapshot)), tower())


@pytest.mark.parametrize(
    ("snapshot", "target"),
    [
        ("models--a--b/snapshots/c", "models--other--b/blobs"),
        ("models--a--b/snapshots/c", "models--a--b"),
        ("models--a--b/snapshots/c", "."),
        ("models--a--b/elsewhere/c", "models--a--b/blobs"),
        ("datasets--a--b/snapshots/c", "datasets--a--b/blobs"),
    ],
)
def test_p20_links_out_of_a_hub_snapshot(tmp_path, snapshot, target):
    directory = write_single(tmp_path / snapshot, tower())
    (tmp_path / target).mkdir(parents=True, exist_ok=True)
    (directory / "model.safetensors").rename(tmp_path / target / "hash")
    (directory / "model.safetensors").symlink_to(tmp_path / target / "hash")
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        open_directory(directory)


def test_p20_a_link_in_a_circle_is_no_file(tmp_path):
    write_shards(tmp_path)
    (tmp_path / SHARDS[0]).unlink()
    (tmp_path / SHARDS[0]).symlink_to(SHARDS[0])
    with pytest.raises(CheckpointError, match=f"{SHARDS[0]} cannot be read: Too many levels of symbolic links"):
        open_directory(tmp_path)
