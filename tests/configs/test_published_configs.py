"""Configs as published checkpoints have them, and as transformers writes them: what changes nothing is not refused."""

import json
import re

import numpy as np
import pytest

from made.presets import same_bits, tower_shapes
from made.resaved import config_of, expected, save, tensors_of, tokens_of
from oracle.families import FAMILIES, model_class
from qwenvis import models
from qwenvis.errors import ConfigError
from qwenvis.sources.presets import PRESETS

every_family = pytest.mark.parametrize("family", list(FAMILIES))

# Written by libraries besides transformers 5, into the config of any tower.
COMMON = {
    "_attn_implementation_autoset": True,
    "attn_implementation": "sdpa",
    "hidden_dropout_prob": 0.0,
    "in_chans": 3,
    "pruned_heads": {},
    "tie_word_embeddings": True,
    "tokens_per_second": 2,
    "torch_dtype": "bfloat16",
}
# Of the families' own published configs.
DEAD = {
    "qwen2_vl": {"spatial_patch_size": 14},
    "qwen2_5_vl": {"spatial_patch_size": 14, "num_hidden_layers": 4, "num_attention_heads": 4},
    "qwen2_5_omni": {"spatial_patch_size": 14, "embed_dim": 1280, "init_std": 0.02},
    "qwen3_omni_moe": {"spatial_patch_size": 16, "apply_vit_abs_pos_embed": True, "image_size": 768},
    "qwen3_5": {"deepstack_visual_indexes": []},
    "glm_ocr": {"image_size": 336},
    "glm5_next": {"image_size": 448},
    "paddleocr_vl": {"temporal_patch_size": 2, "pad_token_id": 0, "num_heads": 4},
}


def read(family, vision_config):
    """The `Config` of a family that has no fields left which it does not know."""
    return models.build(models.detect(family, vision_config, {}), vision_config, {})[0].config


@every_family
@pytest.mark.parametrize("sizes", ["default", "tiny"])
def test_what_transformers_writes(family, sizes):
    config = model_class(family).config_class(**(FAMILIES[family].tiny if sizes == "tiny" else {}))
    config._attn_implementation, config.dtype, config.id2label = "sdpa", "bfloat16", {0: "cat", 1: "dog", 2: "eel"}
    config.architectures, config.return_dict, config.problem_type = ["Any"], False, "regression"
    whole, changed = (json.loads(config.to_json_string(use_diff=diff)) for diff in (False, True))
    assert read(family, whole) == read(family, {**whole, **COMMON}) == read(family, changed)


@every_family
def test_dead_fields(family):
    tiny = FAMILIES[family].tiny
    assert read(family, {**tiny, **COMMON, **DEAD.get(family, {})}) == read(family, tiny)


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen3_omni_moe", "paddleocr_vl"])
def test_dead_fields_change_no_bit(tmp_path, family):
    config = json.loads(json.dumps(config_of(family)))
    config.get("thinker_config", config)["vision_config"] |= {**COMMON, **DEAD[family]}
    prefix = "" if family == "paddleocr_vl" else "thinker.visual."
    source = save(tmp_path, {prefix + name: array for name, array in tensors_of(family).items()}, config)
    assert same_bits(tokens_of(source), expected(family))


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        (
            "qwen3_omni_moe",
            {"apply_vit_abs_pos_embed": False},
            r"apply_vit_abs_pos_embed = False; .* supports True only",
        ),
        ("qwen3_omni_moe", {"apply_vit_abs_pos_embed": "no"}, r"expected true or false"),
        ("qwen2_5_vl", {"num_hidden_layers": 1}, r"depth = 4, but num_hidden_layers = 1"),
        ("paddleocr_vl", {"num_heads": 2}, r"num_heads = 2, but num_attention_heads = 4"),
        ("qwen2_5_vl", {"embed_dim": 1280}, r"embed_dim = 1280; this tower does not know"),
        ("qwen3_vl", {"apply_vit_abs_pos_embed": True}, r"apply_vit_abs_pos_embed = True; this tower does not know"),
        ("glm_ocr", {"swiglu_limit": 10.0}, r"swiglu_limit = 10\.0; this tower does not know"),
        ("glm5_next", {"swiglu_limit": 0}, r"swiglu_limit = 0; expected a number above 0"),
    ],
)
def test_what_may_change_the_mathematics(family, fields, message):
    with pytest.raises(ConfigError, match=message):
        read(family, {**FAMILIES[family].tiny, **fields})


def test_glm_5_whose_tower_says_that_it_is_another(tmp_path):
    config = config_of("glm5_next")
    config = {**config, "vision_config": {**config["vision_config"], "model_type": "glm_ocr_vision"}}
    source = save(tmp_path, {f"model.visual.{name}": a for name, a in tensors_of("glm5_next").items()}, config)
    assert same_bits(tokens_of(source), expected("glm5_next"))


def test_a_tower_without_a_prefix_beside_a_language_model(tmp_path):
    """Cosmos 3, in the files that its makers publish."""
    config = {**config_of("qwen3_vl"), "model_type": "cosmos3_omni"}
    others = {name: np.ones((4, 4), np.float32) for name in ("lm_head.weight", "norm.weight", "layers.0.mlp.weight")}
    source = save(tmp_path, tensors_of("qwen3_vl") | others, config)
    assert same_bits(tokens_of(source), expected("qwen3_vl"))


@every_family
def test_parts_of_towers_are_known(family):
    """A tower has all parts that its family states, or all but deepstack, and no other."""
    stated = models.FAMILIES[family].tensors
    names = [name for preset in PRESETS.values() if preset.family == family for name in tower_shapes(preset)]
    found = {part for name in names for part in stated.parts if re.match(rf"{part}\.", name)}
    assert [name for name in names if not any(re.match(rf"{part}\.", name) for part in stated.parts)] == []
    assert set(stated.parts) - found <= {"deepstack_merger_list"}
    assert stated.patch_embedding in names
