"""mmproj files whose tensors are missing, strange, or of several types: named in the error, or read as they are."""

import struct

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from made import mmproj_files
from made.presets import same_bits
from made.resaved import config_of, save, tensors_of, tokens_of
from qwenvis import Encoder
from qwenvis.errors import CheckpointError
from qwenvis.spec import ModelSpec

VISION_CONFIG = config_of("qwen2_vl")["vision_config"]


def spoilt(tmp_path, change):
    """A Qwen2-VL whose list of (name, array, type) is changed."""
    entries = mmproj_files.entries("qwen2_vl", tensors_of("qwen2_vl"), VISION_CONFIG)
    keys = mmproj_files.metadata("qwen2_vl", VISION_CONFIG, 96)
    return mmproj_files.write(tmp_path / "mmproj.gguf", change(entries), keys)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("v.blk.2.ln1.bias", r"missing \(1\): blocks\.2\.norm1\.bias$"),
        ("v.blk.0.attn_k.weight", r"missing \(1\): blocks\.0\.attn\.qkv\.weight\n  left over \(2\): v\.blk\.0\.attn_q"),
        ("v.patch_embd.weight.1", r"of the wrong shape \(1\): patch_embed\.proj\.weight is \(64, 3, 14, 14\)"),
        ("mm.2.weight", r"missing \(1\): merger\.mlp\.2\.weight\n"),
    ],
)
def test_a_missing_tensor_is_named(tmp_path, name, missing):
    path = spoilt(tmp_path, lambda entries: [entry for entry in entries if entry[0] != name])
    with pytest.raises(CheckpointError, match=missing):
        Encoder.from_pretrained(path)


def test_a_stranger_is_named(tmp_path):
    stranger = ("v.blk.0.ls1.weight", np.ones(64, np.float32), Type.F32)
    with pytest.raises(CheckpointError, match=r"left over \(1\): v\.blk\.0\.ls1\.weight$"):
        Encoder.from_pretrained(spoilt(tmp_path, lambda entries: [*entries, stranger]))


@pytest.mark.parametrize("offset", [1, 32, 2**20])
def test_data_in_another_place(tmp_path, offset):
    """One tensor must not be read from the bytes of another, as ggml's reader does not."""
    path = spoilt(tmp_path, lambda entries: entries)
    content = bytearray(path.read_bytes())
    at = content.index(b"v.blk.0.ln1.bias") + len("v.blk.0.ln1.bias") + 4 + 8 + 4
    (before,) = struct.unpack_from("<Q", content, at)
    struct.pack_into("<Q", content, at, (before + offset) % 2**15)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"ln1\.bias begins at byte \d+ of its data; expected {before}"):
        ModelSpec.open(path)


def test_parts_that_do_not_fit(tmp_path):
    def change(entries):
        return [
            (name, array[..., :-1] if name == "v.blk.0.attn_k.weight" else array, kind) for name, array, kind in entries
        ]

    with pytest.raises(CheckpointError, match=r"attn_q\.weight, .*attn_k\.weight, .* do not fit together"):
        ModelSpec.open(spoilt(tmp_path, change))


def test_parts_of_several_types(tmp_path):
    """As a quantiser may leave them: keys and values rounded to float16, and queries not."""
    kinds = {"v.blk.0.attn_k.weight": Type.F16, "v.blk.0.attn_v.weight": Type.BF16}
    path = spoilt(tmp_path, lambda entries: [(name, a, kinds.get(name, kind)) for name, a, kind in entries])
    tensors = dict(tensors_of("qwen2_vl"))
    q, k, v = np.split(tensors["blocks.0.attn.qkv.weight"], 3)
    k, v = k.astype(np.float16).astype(np.float32), v.astype(ml_dtypes.bfloat16).astype(np.float32)
    tensors["blocks.0.attn.qkv.weight"] = np.concatenate([q, k, v])
    judge = save(tmp_path / "judge", {f"visual.{name}": a for name, a in tensors.items()}, config_of("qwen2_vl"))
    assert same_bits(tokens_of(path), tokens_of(judge))
