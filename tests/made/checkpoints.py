"""Small checkpoints for tests: a tower of four tensors, alone, in shards, or as raw bytes."""

import json
import struct

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from qwenvis.checkpoints.configs import read_configs
from qwenvis.checkpoints.shards import open_shards
from qwenvis.weights import Request

CONFIG = {"model_type": "qwen2_vl", "vision_config": {"depth": 1, "embed_dim": 8}}
PATCH = "patch_embed.proj.weight"
INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def tower():
    """A tower of four tensors in the three formats that the Hub has."""
    rng = np.random.default_rng(0)
    return {
        PATCH: rng.standard_normal((8, 3, 2, 2, 2)).astype(ml_dtypes.bfloat16),
        "blocks.0.norm1.weight": rng.standard_normal(8).astype(np.float32),
        "blocks.0.attn.qkv.weight": rng.standard_normal((24, 8)).astype(np.float16),
        "merger.mlp.0.bias": rng.standard_normal(32).astype(ml_dtypes.bfloat16),
    }


def write_json(directory, name, content):
    (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))


def write_single(directory, tensors, prefix="visual.", config=CONFIG):
    directory.mkdir(parents=True, exist_ok=True)
    save_file({prefix + name: array for name, array in tensors.items()}, directory / "model.safetensors")
    write_json(directory, "config.json", config)
    return directory


def write_shards(directory, config=CONFIG):
    """Two shards that share the tower with a language model, one of the language model alone."""
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {f"visual.{name}": array for name, array in tower().items()}
    names = list(arrays)
    language = {"model.norm.weight": np.ones(4, np.float32), "lm_head.weight": np.ones((4, 4), np.float32)}
    contents = [
        {name: arrays[name] for name in names[:2]} | {"model.norm.weight": language["model.norm.weight"]},
        {name: arrays[name] for name in names[2:]},
        {"lm_head.weight": language["lm_head.weight"]},
    ]
    for shard, content in zip(SHARDS, contents, strict=True):
        save_file(content, directory / shard)
    weight_map = {name: shard for shard, content in zip(SHARDS, contents, strict=True) for name in content}
    write_json(directory, INDEX, {"metadata": {"total_size": 1}, "weight_map": weight_map})
    write_json(directory, "config.json", config)
    return directory


def open_directory(directory):
    """The checkpoint of a directory, whatever family its config names."""
    return open_shards(directory, read_configs(directory))


def edit_index(directory, **changes):
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"] |= changes
    write_json(directory, INDEX, index)


def raw_file(path, header, data=b"", length=None):
    """A safetensors file as bytes, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def load_all(checkpoint, progress=None):
    loaded = {}
    requests = [
        Request(name, shape, lambda a, n=name: loaded.update({n: a})) for name, shape in checkpoint.shapes.items()
    ]
    checkpoint.load(requests, progress)
    return loaded


def equal(loaded, expected):
    assert loaded.keys() == expected.keys()
    for name, array in loaded.items():
        assert array.dtype == expected[name].dtype
        assert array.flags.c_contiguous
        assert array.tobytes() == expected[name].tobytes()
        assert array.shape == expected[name].shape
    return True
