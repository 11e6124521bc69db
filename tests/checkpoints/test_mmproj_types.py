"""Types of tensors in mmproj files: the bits of what their blocks stand for, in float32 and in int8."""

import json
import math

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from made import mmproj_files
from made.presets import PRESETS, pixels, same_bits
from made.presets import checkpoint as preset_of
from made.resaved import GRIDS, config_of, expected, save, tensors_of, tokens_of, vision_config_of
from oracle import transformers_towers
from oracle.tolerance import relative_rms
from qwenvis import Encoder, models, sources
from qwenvis.checkpoints.gguf import read_header
from qwenvis.checkpoints.stored import reader
from qwenvis.errors import CheckpointError
from qwenvis.sources.presets import PRESETS as SIZES
from qwenvis.spec import ModelSpec
from qwenvis.weights import Request

every_family = pytest.mark.parametrize("family", mmproj_files.KINDS)
QUANTISED = [Type.F32, Type.F16, Type.BF16, Type.Q8_0]
PUBLISHED = [name for name in SIZES if name not in PRESETS.values() and SIZES[name].family in mmproj_files.KINDS]


def write(path, family="qwen2_vl", kind=Type.Q8_0):
    return mmproj_files.write_tower(
        path / "mmproj.gguf", family, tensors_of(family), vision_config_of(family), kind=kind
    )


def judge_of(path, family, kind):
    """The tower rounded by the package of llama.cpp, and saved as float32 in the Hub's layout."""
    tensors = mmproj_files.rounded(family, tensors_of(family), vision_config_of(family), kind)
    return save(path / "judge", {f"visual.{name}": a for name, a in tensors.items()}, config_of(family))


def encoder(source, dtype="int8", threads=1):
    return Encoder.from_pretrained(source, dtype=dtype, threads=threads)


def tokens(source, dtype="int8", threads=1):
    found = encoder(source, dtype, threads)
    return found(*pixels(found.config, GRIDS)).embeddings


@every_family
@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_other_types_give_the_bits_of_what_they_stand_for(tmp_path, family, kind):
    judge = judge_of(tmp_path, family, kind)
    path = write(tmp_path, family, kind=kind)
    stored = {name: tensor.dtype for name, tensor in sources.open(path).tensors.items()}
    assert kind.name in stored.values()
    assert same_bits(tokens_of(path), tokens_of(judge))
    if kind in (Type.F16, Type.Q8_0):
        assert not same_bits(tokens_of(path), expected(family))  # the presets are bfloat16


@pytest.mark.parametrize("kind", [Type.F32, Type.Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("qwen2_5_vl", {"depth": 6, "intermediate_size": 160, "fullatt_block_indexes": [2, 5]}),
        ("exaone4_5", {"num_heads": 6, "num_key_value_heads": 3, "hidden_size": 192, "fullatt_block_indexes": [1, 3]}),
        ("qwen3_vl", {"deepstack_visual_indexes": [3, 0, 2], "num_position_embeddings": 81, "out_hidden_size": 50}),
        ("glm_ocr", {"num_heads": 2, "intermediate_size": 101, "rms_norm_eps": 1e-3}),
    ],
)
def test_odd_sizes(tmp_path, family, sizes, kind):
    """Rows that no block of 32 divides, shared heads, deepstack out of order: as the same tower in the Hub's layout."""
    _, vision_config, weights = transformers_towers.make(family, **sizes)
    tensors = mmproj_files.rounded(family, weights, vision_config, kind)
    config = {"model_type": family, "vision_config": json.loads(json.dumps(vision_config, default=str))}
    judge = save(tmp_path / "judge", {f"visual.{name}": array for name, array in tensors.items()}, config)
    path = mmproj_files.write_tower(tmp_path / "mmproj.gguf", family, weights, vision_config, kind=kind)
    given = transformers_towers.inputs(vision_config, [[1, 10, 14], [2, 4, 18]])
    got, want = (Encoder.from_pretrained(source, threads=1)(*given) for source in (path, judge))
    assert all(map(same_bits, [got.embeddings, *got.deepstack], [want.embeddings, *want.deepstack]))
    assert len(got.deepstack) == len(vision_config.get("deepstack_visual_indexes", []))


def test_q8_0_is_what_the_package_makes_of_it(tmp_path):
    """Every byte and scales that overflow, underflow, or are no numbers."""
    scales = np.array([1, -0.0, 6e-8, 65504, np.inf, np.nan, 0.1, -3], np.float16)
    blocks = np.empty((256, 34), np.uint8)
    blocks[:, :2] = np.tile(scales, 32).view(np.uint8).reshape(256, 2)
    blocks[:, 2:] = np.arange(256 * 32, dtype=np.uint32).astype(np.uint8).reshape(256, 32)
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_tensor("v.x", blocks.reshape(16, -1), raw_dtype=Type.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with np.errstate(all="ignore"):
        want = gguf.dequantize(blocks.reshape(16, -1), Type.Q8_0)
    header = read_header(path)
    with reader(header.file) as read:
        assert same_bits(read(header.tensors["v.x"]), want)


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q5_1, Type.Q5_0])
def test_fewer_than_8_bits_are_refused_in_words(tmp_path, kind):
    with pytest.raises(CheckpointError, match=rf"stored as {kind.name}; expected F32, F16, BF16, Q8_0: v\.blk\.0\."):
        ModelSpec.open(write(tmp_path, kind=kind))


def test_one_tensor_in_memory_at_a_time(tmp_path):
    """The largest is a twentieth of this tower; while it is read, no more than it and a part of it are there."""
    import tracemalloc

    path = write(tmp_path, kind=Type.Q8_0)
    found = sources.open(path)
    largest = max(4 * np.prod(shape) for shape in found.shapes.values())
    with reader(found.tensors["patch_embed.proj.weight"].file) as read:
        tracemalloc.start()
        for name in found.tensors:
            found._read(read, name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1.5 * largest + 50_000


@every_family
def test_int8_weights_are_those_of_what_the_blocks_stand_for(tmp_path, family):
    given = write(tmp_path, family), judge_of(tmp_path, family, Type.Q8_0), preset_of(family)
    got, want, other = (encoder(source).spec.weights.sha256(1) for source in given)
    assert got == want
    assert got != other


def test_float32_stays_the_default(tmp_path):
    path = write(tmp_path)
    assert [Encoder.from_pretrained(path, **options).format for options in ({}, {"dtype": "auto"})] == ["f32", "f32"]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_blocks_add_little_to_the_error(tmp_path, family):
    """Against float32 of the original; the errors of blocks and of int8 are independent, and add in squares."""
    exact = tokens(preset_of(family), "float32")
    got, original = (relative_rms(tokens(source), exact) for source in (write(tmp_path, family), preset_of(family)))
    assert got < 1.15 * original


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_take_less_memory_than_the_file(name):
    """Of published sizes: all that a tower keeps, padding included, beside the tensors of the file."""
    preset = SIZES[name]
    _, weights = models.build(preset.family, preset.vision_config, {}, "i8")
    tensors = {request.name: np.broadcast_to(np.float32(0), request.shape) for request in weights.requests}
    stored = mmproj_files.entries(preset.family, tensors, preset.vision_config, Type.Q8_0)
    assert kept(weights) < sum(nbytes(array.shape, kind) for _, array, kind in stored)


def kept(weights):
    return sum(memory.nbytes for memory in weights.kept)


def nbytes(shape, kind):
    """Bytes of a tensor in the file."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(shape) // block * size


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tower_of_published_size(tmp_path):
    """Qwen2-VL-2B: the relative RMS of the tokens, and what is kept beside the file that was written."""
    found, tensors = sources.open("synthetic:qwen2-vl-2b", cache_dir=tmp_path), {}
    found.prepare()

    def keep(name):
        return lambda array: tensors.update({name: array.astype(np.float32)})

    found.load([Request(name, shape, keep(name)) for name, shape in found.shapes.items()])
    path = tmp_path / "mmproj.gguf"
    mmproj_files.write_tower(path, "qwen2_vl", tensors, found.vision_config, kind=Type.Q8_0)
    tensors.clear()
    exact = {source: tokens(source, "float32", threads=2) for source in (path, found.path)}
    size, used = path.stat().st_size, kept(encoder(path).spec.weights)
    of_file, of_original = (relative_rms(tokens(source, threads=2), exact[source]) for source in exact)
    total = relative_rms(tokens(path, threads=2), exact[found.path])
    blocks = relative_rms(exact[path], exact[found.path])
    for each in (path, *found.path.glob("*.safetensors")):
        each.unlink()  # pytest would keep its gigabytes
    print(f"weights {used / size:.3f} of the file; int8 of the file {of_file:.4f}, of the original {of_original:.4f}")
    print(f"float32 of the file from the original {blocks:.4f}, int8 of the file from the original {total:.4f}")
    assert used < size
    assert of_file < 1.15 * of_original
    assert 0.95 < total / np.hypot(of_file, blocks) < 1.05
