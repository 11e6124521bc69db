"""The same tower in every layout that writers have: the same bits come out."""

import math

import numpy as np
import pytest

from made.checkpoints import open_directory, write_json
from made.presets import PRESETS, same_bits
from made.presets import checkpoint as preset_of
from made.resaved import config_of, expected, save, tensors_of, tokens_of
from qwenvis.checkpoints.stored import TYPES, StoredFile, StoredTensor
from qwenvis.checkpoints.tensors import Tensor, TensorPart, assembled, channels_first
from qwenvis.errors import CheckpointError

every_family = pytest.mark.parametrize("family", list(PRESETS))


def alone(family):
    """The config of a tower that was saved without its model."""
    found = open_directory(preset_of(family))
    return {**found.vision_config, "model_type": family}


def colqwen(family):
    """The config of a retriever around the model."""
    return {"model_type": "colqwen2", "embedding_dim": 128, "vlm_config": config_of(family)}


LAYOUTS = {
    "visual.": config_of,
    "model.visual.": config_of,
    "thinker.visual.": config_of,
    "model.language_model.visual.": config_of,
    "vlm.visual.": colqwen,
    "vlm.model.visual.": colqwen,
    "": alone,
}


@every_family
@pytest.mark.parametrize("prefix", LAYOUTS)
def test_the_same_bits_under_every_prefix(tmp_path, family, prefix):
    others = {"lm_head.weight": np.ones((4, 4), np.float32), "custom_text_proj.weight": np.ones((4, 4), np.float32)}
    named = {prefix + name: array for name, array in tensors_of(family).items()} | (others if prefix else {})
    source = save(tmp_path, named, LAYOUTS[prefix](family))
    assert open_directory(source).prefix == prefix
    assert same_bits(tokens_of(source), expected(family))


@every_family
@pytest.mark.parametrize("prefix", ["vision_tower.", "visual."])
def test_the_same_bits_from_channels_last(tmp_path, family, prefix):
    """As MLX keeps convolutions."""
    last = {name: np.moveaxis(a, 1, -1) if a.ndim > 2 else a for name, a in tensors_of(family).items()}
    assert 3 in {array.shape[-1] for array in last.values()}
    source = save(tmp_path, {prefix + name: array for name, array in last.items()}, config_of(family))
    assert open_directory(source).shapes == open_directory(preset_of(family)).shapes
    assert same_bits(tokens_of(source), expected(family))


def stored_as(path, name, dtype, shape):
    """A tensor of a file, its bytes at the very beginning."""
    nbytes = TYPES[dtype].block.itemsize * math.prod(shape)
    return StoredTensor(name, StoredFile.of(path, b""), dtype, shape, 0, nbytes)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ((1280, 3, 2, 14, 14), (1280, 2, 14, 14, 3)),
        ((8, 3, 2, 2, 2), (8, 2, 2, 2, 3)),
        ((1152, 3, 14, 14), (1152, 14, 14, 3)),
        ((4096, 1536, 2, 2), (4096, 2, 2, 1536)),
    ],
)
def test_which_axis_holds_the_channels(tmp_path, first, last):
    array = np.arange(np.prod(first[1:]), dtype=np.float32).reshape(1, *first[1:]).repeat(first[0], axis=0)
    stored = {"p.w": np.ascontiguousarray(np.moveaxis(array, 1, -1))}
    assert stored["p.w"].shape == last
    plain, turned = (Tensor.of(stored_as(tmp_path, "p.w", "F32", shape)) for shape in (first, last))
    assert channels_first({"w": plain}) == {"w": plain}
    turned = channels_first({"w": turned})["w"]
    assert turned.shape == plain.shape == first
    assert turned.nbytes == plain.nbytes
    got = assembled(turned, lambda part: stored[part.name])
    assert got.flags.c_contiguous
    assert (got == array).all()


def test_parts_of_several_types_meet_in_float32(tmp_path):
    parts = (
        TensorPart(stored_as(tmp_path, "a", "F16", (2, 3)), (slice(0, 2),)),
        TensorPart(stored_as(tmp_path, "b", "F32", (1, 3)), (slice(2, 3),)),
    )
    stored = {"a": np.ones((2, 3), np.float16), "b": np.full((1, 3), 1 / 3, np.float32)}
    tensor = Tensor("F32", (3, 3), parts)
    assert tensor.nbytes == 2 * 6 + 4 * 3
    got = assembled(tensor, lambda part: stored[part.name])
    assert got.dtype == np.float32
    assert same_bits(got, np.concatenate([stored["a"].astype(np.float32), stored["b"]]))


def test_what_a_directory_without_weights_may_hold_instead(tmp_path):
    write_json(tmp_path, "config.json", {"model_type": "qwen2_vl", "vision_config": {}})
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(CheckpointError, match="an adapter has no tower: merge it into the model"):
        open_directory(tmp_path)
    (tmp_path / "mmproj-f16.gguf").touch()
    with pytest.raises(CheckpointError, match="name the mmproj file itself"):
        open_directory(tmp_path)
