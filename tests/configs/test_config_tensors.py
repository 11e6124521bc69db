"""Configs beside the tensors of a tower: completed by their shapes, and held against them."""

import pytest

from made.presets import tower_shapes
from qwenvis.errors import CheckpointError, ConfigError
from qwenvis.models import FAMILIES
from qwenvis.sources.presets import PRESETS


def read(family, values, shapes=None):
    return FAMILIES[family].config(values, shapes or {})


def published(preset):
    """(family, vision_config, shapes) of a published tower."""
    stated = PRESETS[preset]
    return stated.family, stated.vision_config, tower_shapes(stated)


UNSEEN = (
    "num_heads num_attention_heads window_size fullatt_block_indexes deepstack_visual_indexes image_size swiglu_limit"
)


@pytest.mark.parametrize("preset", PRESETS)
def test_tensors_complete_a_config(preset):
    """What is left out comes from the tensors, but for what they do not show."""
    family, whole, shapes = published(preset)
    unseen = {name: whole[name] for name in UNSEEN.split() if name in whole}
    assert read(family, unseen, shapes) == read(family, whole, shapes) == read(family, whole)


DISAGREEMENTS = [
    ("qwen2-vl-2b", "embed_dim", 1152),
    ("qwen2-vl-2b", "hidden_size", 3584),
    ("qwen2-vl-2b", "mlp_ratio", 3),
    ("qwen2-vl-2b", "depth", 24),
    ("qwen2-vl-2b", "depth", 33),
    ("qwen2-vl-2b", "num_hidden_layers", 31),
    ("qwen2-vl-2b", "in_channels", 1),
    ("qwen2-vl-2b", "patch_size", 16),
    ("qwen2-vl-2b", "temporal_patch_size", 1),
    ("qwen2.5-vl-3b", "hidden_size", 3584),
    ("qwen2.5-vl-3b", "intermediate_size", 3456),
    ("qwen2.5-vl-3b", "out_hidden_size", 3584),
    ("qwen2.5-omni-3b", "intermediate_size", 3456),
    ("qwen3-vl-2b", "num_position_embeddings", 100),
    ("qwen3-vl-2b", "intermediate_size", 4304),
    ("qwen3-omni-30b-a3b", "out_hidden_size", 4096),
    ("glm-4.1v-9b", "out_hidden_size", 1536),
    ("glm-4.1v-9b", "intermediate_size", 4096),
    ("glm-4.1v-9b", "image_size", 224),
    ("paddleocr-vl", "image_size", 364),
    ("glm-ocr", "intermediate_size", 1536),
    ("glm-5.3-flash", "projection_intermediate_size", 4096),
    ("paddleocr-vl", "intermediate_size", 4096),
    ("paddleocr-vl", "num_hidden_layers", 26),
    ("paddleocr-vl", "patch_size", 16),
]


@pytest.mark.parametrize(("preset", "name", "value"), DISAGREEMENTS)
def test_config_and_tensors_disagree(preset, name, value):
    family, whole, shapes = published(preset)
    values = {key: v for key, v in whole.items() if key != "depth" or name == "depth"} | {name: value}
    with pytest.raises(ConfigError, match=rf"{name} = {value}\b"):
        read(family, values, shapes)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("patch_embed.proj.weight", (0, 3, 2, 14, 14)),
        ("patch_embed.proj.weight", (1 << 40, 3, 2, 14, 14)),
        ("blocks.0.mlp.fc1.weight", ()),
        ("blocks.0.mlp.fc1.weight", (0, 64)),
    ],
)
def test_tensors_without_a_size(name, shape):
    """`CheckpointError` is the root of both errors that may say so."""
    with pytest.raises(CheckpointError):
        read("qwen2_vl", {}, {name: shape})
