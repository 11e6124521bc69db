"""Counts and sizes of configs, indexes and headers beyond those of any checkpoint: refused before any work."""

import json
import shutil
import struct
import time
from pathlib import Path

import pytest

from made import mmproj_files
from made.checkpoints import INDEX, PATCH, raw_file, write_json
from made.presets import checkpoint as preset_of
from made.resaved import config_of, tensors_of
from qwenvis import CheckpointError, ConfigError
from qwenvis.checkpoints.shards import MAX_HEADER_BYTES, MOST_TENSORS
from qwenvis.models import FAMILIES
from qwenvis.spec import ModelSpec


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(preset_of("qwen2_vl"), tmp_path / "copy"))


def timed(source, message, error=CheckpointError):
    start = time.process_time()
    with pytest.raises(error, match=message):
        ModelSpec.open(source)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("field", ["depth", "num_heads", "hidden_size", "out_hidden_size", "intermediate_size"])
@pytest.mark.parametrize("value", [1 << 20, 10**5, 10**30])
def test_counts_beyond_those_of_any_tower(tmp_path, field, value):
    source = Path(shutil.copytree(preset_of("qwen3_vl"), tmp_path / "copy"))
    config = json.loads((source / "config.json").read_text())
    config["vision_config"][field] = value
    write_json(source, "config.json", config)
    timed(source, rf"vision_config says {field} = |a hidden size of", ConfigError)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"])
@pytest.mark.parametrize("value", [1 << 20, 1 << 10])
def test_a_depth_over_a_tower_of_a_few_tensors(tmp_path, family, value):
    chosen = {PATCH, *FAMILIES[family].signature_tensors}
    tensors = {f"visual.{name}": array for name, array in tensors_of(family).items() if name in chosen}
    config = config_of(family)
    config = {**config, "vision_config": {**config["vision_config"], "depth": value}}
    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    raw_file(tmp_path / "model.safetensors", header, b"".join(array.tobytes() for array in tensors.values()))
    write_json(tmp_path, "config.json", config)
    timed(
        tmp_path, rf"depth = {value}(; expected an integer from 1 to 1024|, blocks 0 to 1023, but .* has no blocks\.)"
    )


@pytest.mark.parametrize("field", ["deepstack_visual_indexes", "fullatt_block_indexes"])
def test_lists_of_more_blocks_than_any_tower_has(tmp_path, field):
    source = shutil.copytree(preset_of("qwen3_vl" if field[0] == "d" else "qwen2_5_vl"), tmp_path / "copy")
    config = json.loads((source / "config.json").read_text())
    config["vision_config"][field] = list(range(100_000))
    write_json(source, "config.json", config)
    timed(source, rf"{field} = \[0, 1, .*\.\.\.; expected at most 1024 indexes of blocks", ConfigError)


def test_an_index_of_too_many_entries(copied):
    names = {f"visual.blocks.{i}.norm1.weight": "model-00001-of-00003.safetensors" for i in range(MOST_TENSORS + 1)}
    write_json(copied, INDEX, {"weight_map": names})
    timed(copied, r"has more than (500,000 entries|64,000,000 bytes), the limit")


def test_configs_of_many_brackets(copied):
    write_json(copied, "config.json", '{"a": [' + ",".join(["[]"] * 10**6) + "]}")
    timed(copied, r"config\.json cannot be read as JSON: it has more than 2,000,000 bytes", ConfigError)


def test_a_header_of_a_million_tensors(copied):
    length = MAX_HEADER_BYTES + 1
    with (copied / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(length + 100)  # nobody looks at the rest
    timed(copied, r"its header has 32,000,001 bytes; at most 32,000,000 are read")


@pytest.mark.parametrize("key", ["clip.vision.block_count", "clip.vision.attention.head_count"])
def test_counts_of_an_mmproj(tmp_path, key):
    given = tensors_of("qwen2_vl"), config_of("qwen2_vl")["vision_config"]
    path = mmproj_files.write_tower(tmp_path / "x.gguf", "qwen2_vl", *given, **{key: 1 << 20})
    timed(path, r"says (depth|num_heads) = |a hidden size of", ConfigError)
