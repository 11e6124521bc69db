"""One NaN or infinity in a weight: the error at load names the tensor as the checkpoint calls it."""

import itertools
import re

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from made.checkpoints import open_directory
from made.mmproj_files import write_tower
from made.presets import checkpoint as preset_of
from made.resaved import config_of, save, tensors_of
from oracle.families import FAMILIES
from qwenvis import CheckpointError, Encoder, ops
from qwenvis.checkpoints.gguf import read_header
from qwenvis.nn.formats import DTYPES

BF16 = np.dtype(ml_dtypes.bfloat16)
BAD = [np.nan, np.inf, -np.inf]
STORED = [np.float32, np.float16, BF16]
MAX, MAX_BF16 = np.finfo(np.float32).max, float(ml_dtypes.finfo(BF16).max)


def one_of_each_kind(names):
    """Names that differ in more than their numbers, the last of each."""
    return list({re.sub(r"\d+", "#", name): name for name in names}.values())


def loaded(directory, tensors, family, **options):
    """An encoder of the family's tiny preset with these tensors."""
    return Encoder.from_pretrained(save(directory, tensors, config_of(family)), threads=2, **options)


def full(family):
    prefix = open_directory(preset_of(family)).prefix
    return {prefix + name: array for name, array in tensors_of(family).items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_named(tmp_path, family):
    """NaN and both infinities in turn, in each stored type and each format, somewhere in each kind of tensor."""
    tensors, cases = full(family), itertools.cycle(itertools.product(STORED, DTYPES, BAD))
    rng = np.random.default_rng(0)
    for name, (stored, dtype, bad) in zip(one_of_each_kind(tensors), cases, strict=False):
        array = tensors[name].astype(stored)
        place = [int(rng.integers(side)) for side in array.shape]
        array[tuple(place)] = bad
        with pytest.raises(CheckpointError, match=re.escape(f"safetensors: {name} is not finite: {bad} at {place} is")):
            loaded(tmp_path, {**tensors, name: array}, family, dtype=dtype)


def test_a_tensor_that_mlx_has_turned(tmp_path):
    tensors, name = full("qwen2_vl"), "visual.patch_embed.proj.weight"
    tensors[name] = tensors[name].transpose(0, 2, 3, 4, 1).copy()
    tensors[name][3, 1, 2, 4, 0] = np.inf
    with pytest.raises(CheckpointError, match=re.escape(f"{name} is not finite: inf at [3, 1, 2, 4, 0] is")):
        loaded(tmp_path, tensors, "qwen2_vl")


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_every_tensor_of_a_gguf_file(tmp_path, family, kind):
    """The error has llama.cpp's names, of each part of a fused tensor too; a scale of q8_0 spoils 32 entries."""
    path = tmp_path / "mmproj.gguf"
    write_tower(path, family, tensors_of(family), config_of(family)["vision_config"], kind=kind)
    stored = read_header(path).tensors
    whole = path.read_bytes()
    for name in one_of_each_kind(stored):
        tensor = stored[name]
        scalar = {"F32": "<f4", "F16": "<f2", "BF16": BF16, "Q8_0": "<f2"}[tensor.dtype]
        spoilt = bytearray(whole)
        spoilt[tensor.offset : tensor.offset + np.dtype(scalar).itemsize] = np.array([-np.inf], scalar).tobytes()
        path.write_bytes(spoilt)
        place, count = [0] * len(tensor.shape), 32 if tensor.dtype == "Q8_0" else 1
        with pytest.raises(CheckpointError, match=re.escape(f"{name} is not finite: ")) as error:
            Encoder.from_pretrained(path, threads=1)
        assert f"inf at {place} is the first of {count} such" in str(error.value).replace("nan", "inf")


def test_a_value_that_bfloat16_cannot_hold(tmp_path):
    """The largest of float32 is a number there, and would be rounded to infinity."""
    tensors, name = full("qwen2_vl"), "visual.blocks.1.mlp.fc1.weight"
    tensors[name] = tensors[name].copy()
    tensors[name][5, 7] = MAX_BF16
    loaded(tmp_path, tensors, "qwen2_vl", dtype="bfloat16")
    tensors[name][5, 7] = -MAX
    loaded(tmp_path, tensors, "qwen2_vl")
    with pytest.raises(CheckpointError, match=re.escape(f"{name} is not finite once it is packed") + ".* 3.40282e"):
        loaded(tmp_path, tensors, "qwen2_vl", dtype="bfloat16")


def test_frames_of_the_kernel_whose_sum_float32_cannot_hold(tmp_path):
    tensors, name = full("qwen2_vl"), "visual.patch_embed.proj.weight"
    tensors[name] = tensors[name].copy()
    tensors[name][3, 1, :, 2, 4] = MAX
    with pytest.raises(CheckpointError, match=re.escape(f"{name} is not finite once it is packed")):
        loaded(tmp_path, tensors, "qwen2_vl")


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_finite_is_accepted(tmp_path, stored, dtype):
    """Zeros of both signs, denormals, and the largest that both the stored type and bfloat16 have."""
    tensors = full("qwen3_vl")
    largest = min(float(ml_dtypes.finfo(stored).max), MAX_BF16)
    extremes = [0.0, -0.0, float(ml_dtypes.finfo(stored).smallest_subnormal), largest, -largest]
    for name in one_of_each_kind(tensors):
        tensors[name] = tensors[name].astype(stored)
        tensors[name].reshape(-1)[: len(extremes)] = extremes
        if name.endswith("patch_embed.proj.weight"):
            tensors[name].reshape(-1)[: len(extremes)] = 0  # two frames of the largest have no sum
    loaded(tmp_path, tensors, "qwen3_vl", dtype=dtype)


def test_a_failed_load_leaves_no_thread_and_no_encoder_behind(tmp_path):
    """The same directory, mended, loads."""
    tensors = full("qwen2_vl")
    spoilt = {name: array.copy() for name, array in tensors.items()}
    next(iter(spoilt.values())).reshape(-1)[0] = np.nan
    with pytest.raises(CheckpointError, match="nan at"):
        loaded(tmp_path, spoilt, "qwen2_vl")
    assert loaded(tmp_path, tensors, "qwen2_vl").config.depth == 4


ENTRIES = {
    np.float32: ([np.nan, np.inf, -np.inf], [MAX, -MAX, -0.0, 1e-45]),
    np.uint16: ([0x7FC0, 0x7F80, 0xFF80, 0xFFFF, 0x7F81], [0x7F7F, 0xFF7F, 0x8000, 0x0001]),
}


@pytest.mark.parametrize("dtype", ENTRIES)
@pytest.mark.parametrize("columns", [1, 2, 15, 16, 33, 70])
def test_each_entry_is_looked_at(isa, dtype, columns):
    """Of rows at any distance, and nothing between them."""
    bad, good = ENTRIES[dtype]
    whole = np.full((70, columns + 3), bad[0], dtype)
    x = whole[:, :columns]
    x[:] = np.resize(np.array(good, dtype), x.shape)
    assert ops.all_finite(x)
    for column in range(columns):
        row = 69 - column % 3
        for value in bad:
            kept, x[row, column] = x[row, column], value
            assert not ops.all_finite(x), (row, column, value)
            x[row, column] = kept
    assert ops.all_finite(x[:0])
    assert ops.all_finite(x)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("format", ops.formats())
def test_each_entry_of_a_weight(isa, stored, format):
    weight = np.ones((35, 37), stored)
    packed = ops.PackedWeight(35, 37, format)
    for row, column in [(0, 0), (34, 36), (17, 5)]:
        for bad in BAD:
            weight[row, column] = bad
            with pytest.raises(FloatingPointError, match="the weight is not finite"):
                packed.pack(weight)
        weight[row, column] = 1
    packed.pack(weight)


def test_a_bias():
    packed = ops.PackedWeight(35, 3)
    for bad in BAD:
        bias = np.zeros(35, np.float32)
        bias[34] = bad
        with pytest.raises(FloatingPointError, match="the bias is not finite"):
            packed.pack_bias(bias)
