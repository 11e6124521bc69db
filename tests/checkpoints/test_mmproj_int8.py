"""q8_0 files in int8: the values of their blocks are quantised as any other weight, into less memory than the file."""

import math

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from made import mmproj_files
from made.checkpoints import open_directory
from made.presets import PRESETS, pixels
from made.presets import checkpoint as preset_of
from made.resaved import GRIDS, config_of, save, tensors_of
from oracle.tolerance import relative_rms
from qwenvis import Encoder, models, sources
from qwenvis.sources.presets import PRESETS as SIZES
from qwenvis.weights import Request

PUBLISHED = [name for name in SIZES if name not in PRESETS.values() and SIZES[name].family in mmproj_files.KINDS]


def write(directory, family):
    vision_config = open_directory(preset_of(family)).vision_config
    path = directory / "mmproj.gguf"
    return mmproj_files.write_tower(path, family, tensors_of(family), vision_config, kind=Type.Q8_0)


def encoder(source, dtype="int8", threads=1):
    return Encoder.from_pretrained(source, dtype=dtype, threads=threads)


def tokens(source, dtype="int8", threads=1):
    found = encoder(source, dtype, threads)
    return found(*pixels(found.config, GRIDS)).embeddings


@pytest.mark.parametrize("family", mmproj_files.KINDS)
def test_weights_are_those_of_what_the_blocks_stand_for(tmp_path, family):
    """To the bit. The package of llama.cpp says what that is."""
    vision_config = open_directory(preset_of(family)).vision_config
    tensors = mmproj_files.rounded(family, tensors_of(family), vision_config, Type.Q8_0)
    judge = save(tmp_path / "judge", {f"visual.{name}": a for name, a in tensors.items()}, config_of(family))
    got, want, other = (
        encoder(source).spec.weights.sha256(1) for source in (write(tmp_path, family), judge, preset_of(family))
    )
    assert got == want
    assert got != other


def test_float32_stays_the_default(tmp_path):
    path = write(tmp_path, "qwen2_vl")
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
