"""Configs of towers: completed as transformers does, held against the tensors, refused by name."""

import json

import pytest
import truth
from families import KINDS, WORDS, model_class, sized

from qwenvis import Encoder, models, synthetic
from qwenvis.errors import CheckpointError, ConfigError
from qwenvis.models import FAMILIES

every_family = pytest.mark.parametrize("family", list(FAMILIES))
every_kind = pytest.mark.parametrize("family", KINDS)

# What many derivatives of Qwen2-VL-2B publish.
PARTIAL = {"hidden_size": 1536, "in_chans": 3, "model_type": "qwen2_vl", "spatial_patch_size": 14}


def read(family, values=None, shapes=None):
    return FAMILIES[family].config(values or {}, shapes or {})


def config_class(family):
    """Of transformers."""
    return model_class(family).config_class


def published(preset):
    """(family, vision_config, shapes) of a published tower."""
    stated = synthetic.PRESETS[preset]
    return stated.family, stated.vision_config, synthetic.tower_shapes(stated)


@pytest.mark.parametrize(
    "values", [{}, PARTIAL, {"depth": 2, "embed_dim": 256, "num_heads": 4, "mlp_ratio": 3}], ids=str
)
def test_qwen2_vl_is_completed_as_transformers_does(values):
    want = config_class("qwen2_vl")(**{name: v for name, v in values.items() if name != "model_type"})
    config = read("qwen2_vl", values)
    assert config.hidden_size == want.embed_dim
    assert config.out_hidden_size == want.hidden_size
    assert config.intermediate_size == int(want.embed_dim * want.mlp_ratio)
    for name in ("depth", "num_heads", "patch_size", "temporal_patch_size", "spatial_merge_size", "in_channels"):
        assert getattr(config, name) == getattr(want, name)
    assert config.hidden_act == want.hidden_act
    assert config.rope_theta == want.rope_parameters["rope_theta"]


@pytest.mark.parametrize(
    "values", [{}, {"hidden_size": 1280, "out_hidden_size": 2048, "intermediate_size": 3456}], ids=str
)
def test_qwen2_5_vl_is_completed_as_transformers_does(values):
    want, config = config_class("qwen2_5_vl")(**values), read("qwen2_5_vl", values)
    for name in ("depth", "num_heads", "patch_size", "temporal_patch_size", "spatial_merge_size", "in_channels"):
        assert getattr(config, name) == getattr(want, name)
    for name in ("hidden_size", "intermediate_size", "out_hidden_size", "window_size"):
        assert getattr(config, name) == getattr(want, name)
    assert config.fullatt_block_indexes == tuple(want.fullatt_block_indexes)
    assert config.rope_theta == want.rope_parameters["rope_theta"]


def test_partial_config_of_a_published_tower():
    family, whole, shapes = published("qwen2-vl-2b")
    assert read(family, PARTIAL, shapes) == read(family, PARTIAL) == read(family, whole, shapes)
    assert (read(family, PARTIAL).head_dim, read(family, PARTIAL).merge_unit) == (80, 4)
    assert read(family, PARTIAL).kernel == (3, 2, 14, 14)


@every_family
def test_families_are_completed_as_transformers_does(family):
    """An empty config is transformers' default, in its own words."""
    want, config = config_class(family)(), read(family)
    words = WORDS.get(family, {})
    for name in ("depth", "hidden_size", "num_heads", "patch_size", "spatial_merge_size", "in_channels"):
        assert getattr(config, name) == getattr(want, words.get(name, name)), name
    assert config.hidden_act.removesuffix("_gate") == want.hidden_act
    assert config.rope_theta == want.rope_parameters["rope_theta"]
    for name in ("window_size", "num_position_embeddings", "rms_norm_eps", "layer_norm_eps", "swiglu_limit"):
        assert getattr(config, name) == getattr(want, name, getattr(config, name)), name
    for name in ("fullatt_block_indexes", "deepstack_visual_indexes"):
        assert getattr(config, name) == tuple(getattr(want, name, ()))


UNSEEN = (
    "num_heads num_attention_heads window_size fullatt_block_indexes deepstack_visual_indexes image_size swiglu_limit"
)


@pytest.mark.parametrize("preset", synthetic.PRESETS)
def test_tensors_complete_a_config(preset):
    """What is left out comes from the tensors, but for what they do not show."""
    family, whole, shapes = published(preset)
    unseen = {name: whole[name] for name in UNSEEN.split() if name in whole}
    assert read(family, unseen, shapes) == read(family, whole, shapes) == read(family, whole)


def test_aliases():
    values = {"num_attention_heads": 8, "num_hidden_layers": 3}
    config = read("qwen2_vl", values)
    assert (config.num_heads, config.depth) == (8, 3)
    assert read("qwen2_vl", {**values, "num_heads": 8, "depth": 3}) == config
    for name in ("num_heads", "depth"):
        with pytest.raises(ConfigError, match=rf"vision_config says {name} = 5, but num_\w+ = [83]"):
            read("qwen2_vl", {**values, name: 5})
    assert read("qwen2_vl", {"patch_size": [16, 16], "temporal_patch_size": [2]}).kernel == (3, 2, 16, 16)


@pytest.mark.parametrize(
    "values",
    [
        {"rope_theta": 500},
        {"rope_parameters": {"rope_type": "axial", "rope_theta": 500}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_theta": 7},
        {"rope_scaling": {"type": "axial"}, "rope_theta": 500},
        {"rope_scaling": {"type": "axial", "rope_theta": 500}, "rope_parameters": {"rope_theta": 7}},
    ],
    ids=str,
)
@every_kind
def test_base_of_the_angles(family, values):
    assert read(family, values).rope_theta == 500.0
    assert isinstance(read(family, values).rope_theta, float)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
def test_activations_of_qwen2_vl(act):
    assert read("qwen2_vl", {"hidden_act": act}).hidden_act == act


NULLS = {
    "qwen2_vl": "depth num_hidden_layers embed_dim hidden_size mlp_ratio num_heads num_attention_heads head_dim",
    "qwen2_5_vl": "hidden_size intermediate_size out_hidden_size window_size fullatt_block_indexes",
}
SHARED = " hidden_act patch_size in_channels spatial_merge_size rope_theta rope_parameters rope_scaling"


@pytest.mark.parametrize(("family", "name"), [(f, name) for f in NULLS for name in (NULLS[f] + SHARED).split()])
def test_null_is_absent(family, name):
    assert read(family, {name: None}) == read(family)


@every_kind
def test_null_is_absent_from_rope_too(family):
    rope = {"rope_type": None, "type": "axial", "rope_theta": None}
    assert read(family, {"rope_parameters": rope, "rope_theta": 500}).rope_theta == 500.0


# Refused, by name.

NO_SIZES = [0, -1, 1.5, 1280.0, "16", True, [], [14, 16], {}, 1 << 21, 10**400]
SIZES = {
    "qwen2_vl": "depth embed_dim hidden_size num_heads patch_size in_channels spatial_merge_size",
    "qwen2_5_vl": "num_hidden_layers hidden_size intermediate_size out_hidden_size num_attention_heads window_size "
    "temporal_patch_size",
}


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, names in SIZES.items() for name in names.split()]
)
@pytest.mark.parametrize("value", NO_SIZES, ids=lambda value: str(value)[:20])
def test_what_is_no_size(family, name, value):
    with pytest.raises(ConfigError, match=name):
        read(family, {name: value})


WRONG = [
    ("qwen2_vl", "hidden_act", "swish"),
    ("qwen2_vl", "hidden_act", "silu"),
    ("qwen2_vl", "hidden_act", ["quick_gelu"]),
    ("qwen2_5_vl", "hidden_act", "gelu"),
    ("qwen2_5_vl", "hidden_act", "relu"),
    ("qwen2_vl", "mlp_ratio", 0),
    ("qwen2_vl", "mlp_ratio", -4),
    ("qwen2_vl", "mlp_ratio", 1e-9),
    ("qwen2_vl", "mlp_ratio", "4"),
    ("qwen2_vl", "mlp_ratio", True),
    ("qwen2_vl", "mlp_ratio", float("inf")),
    ("qwen2_vl", "mlp_ratio", float("nan")),
    ("qwen2_vl", "mlp_ratio", 10**400),
    ("qwen2_vl", "num_heads", 3),
    ("qwen2_vl", "num_heads", 4),
    ("qwen2_vl", "num_heads", 640),
    ("qwen2_vl", "head_dim", {}),
    ("qwen2_vl", "spatial_merge_size", 17),
    ("qwen2_5_vl", "spatial_merge_size", 1 << 20),
    ("qwen2_5_vl", "window_size", 27),
    ("qwen2_5_vl", "fullatt_block_indexes", 7),
    ("qwen2_5_vl", "fullatt_block_indexes", "7"),
    ("qwen2_5_vl", "fullatt_block_indexes", ["7"]),
    ("qwen2_5_vl", "fullatt_block_indexes", [7.0]),
    ("qwen2_5_vl", "fullatt_block_indexes", [True]),
    ("qwen2_5_vl", "fullatt_block_indexes", [-1]),
    ("qwen3_vl", "deepstack_visual_indexes", [-1]),
    ("qwen3_vl", "deepstack_visual_indexes", 8),
    ("qwen3_vl", "num_position_embeddings", 0),
    ("qwen3_vl", "hidden_act", "silu"),
    ("exaone4_5", "num_key_value_heads", 5),
    ("exaone4_5", "num_key_value_heads", 0),
    ("glm4v", "attention_bias", 1),
    ("glm4v", "rms_norm_eps", 0),
    ("glm4v", "rms_norm_eps", True),
    ("glm4v", "rms_norm_eps", float("nan")),
    ("glm4v", "image_size", 13),
    ("glm4v", "image_size", [336, 448]),
    ("glm4v", "hidden_act", "gelu"),
    ("glm5_next", "swiglu_limit", -10),
    ("glm5_next", "swiglu_limit", "10"),
    ("glm5_next", "projection_intermediate_size", 0),
    ("paddleocr_vl", "layer_norm_eps", float("inf")),
    ("paddleocr_vl", "num_channels", 0),
    ("qwen2_vl", "rope_theta", 1),
    ("qwen2_vl", "rope_theta", "10000"),
    ("qwen2_vl", "rope_theta", True),
    ("qwen2_vl", "rope_theta", float("nan")),
    ("qwen2_vl", "rope_theta", float("inf")),
    ("qwen2_vl", "rope_theta", 10**400),
]


@pytest.mark.parametrize(("family", "name", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_wrong_values(family, name, value):
    with pytest.raises(ConfigError, match=name):
        read(family, {name: value})


@pytest.mark.parametrize(
    "rope",
    [
        "yarn",
        "axial",
        "",
        0,
        [],
        ["axial"],
        {"rope_type": "yarn"},
        {"type": "mrope"},
        {"rope_type": ["axial"]},
        {"rope_type": "linear", "factor": 2},
        {"rope_type": "axial", "rope_theta": 0},
        {"rope_type": "axial", "partial_rotary_factor": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
@every_kind
def test_other_kinds_of_rope(family, name, rope):
    with pytest.raises(ConfigError, match="rope"):
        read(family, {name: rope})


@every_kind
def test_head_dim_is_no_free_choice(family):
    """It would change the angles; where it says what the other sizes say, it may stand there."""
    sizes = sized(family, hidden_size=1280, num_heads=16)
    assert read(family, {**sizes, "head_dim": 80}) == read(family, sizes)
    with pytest.raises(ConfigError, match="head_dim"):
        read(family, {**sizes, "head_dim": 40})


# The tensors are the judge.

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


# Families.


@pytest.mark.parametrize(
    ("model_type", "vision_type", "family"),
    [
        ("qwen2_vl", None, "qwen2_vl"),
        ("qwen2_vl", "qwen2_vl", "qwen2_vl"),
        ("qwen2_vl_vision", "qwen2_vl_vision", "qwen2_vl"),
        ("colqwen2", "qwen2_vl", "qwen2_vl"),
        ("qwen2_5_vl", None, "qwen2_5_vl"),
        ("qwen2_5_vl_vision", None, "qwen2_5_vl"),
        ("qwen2_5_omni_thinker", "qwen2_5_omni_vision_encoder", "qwen2_5_omni"),
        ("qwen3_omni_moe_thinker", None, "qwen3_omni_moe"),
        ("qwen3_vl_moe", "qwen3_vl", "qwen3_vl_moe"),
        ("qwen3_5", "qwen3_5_vision", "qwen3_5"),
        ("glm46v", "glm4v_vision", "glm46v"),
        ("glm5_next", "glm_ocr_vision", "glm5_next"),
        ("colqwen3", "qwen3_vl_vision", "qwen3_vl"),
        ("cosmos3_omni", "qwen3_vl", "qwen3_vl"),
        ("qwen2_vl", "qwen3_vl", "qwen2_vl"),
    ],
)
def test_family_that_the_config_names(model_type, vision_type, family):
    assert models.detect(model_type, {"model_type": vision_type}, {}) == family


def test_tensors_decide_between_two_families_that_a_config_names():
    shapes = dict.fromkeys(FAMILIES["qwen3_vl"].marks, (1,))
    assert models.detect("qwen2_vl", {"model_type": "qwen3_vl"}, shapes) == "qwen3_vl"
    assert models.detect("qwen3_vl", {"model_type": "qwen2_vl"}, shapes) == "qwen3_vl"


@pytest.mark.parametrize("model_type", ["", "llava", "qwen9_vl", "qwen2_5_omni_audio_encoder", "qwen2"])
def test_unknown_model_type(model_type):
    with pytest.raises(ConfigError, match=rf"model_type '{model_type or 'missing'}'.*qwen2_vl, qwen2_5_vl"):
        models.detect(model_type, {}, {})


@every_family
def test_tensors_of_another_family(tmp_path, family):
    other = "glm_ocr" if family.startswith("qwen2") else "qwen2_vl"
    kin = [name for name in FAMILIES if FAMILIES[name].marks == FAMILIES[family].marks]
    truth.save(tmp_path, family, truth.make(family)[0])
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": other}
    config["vision_config"]["model_type"] = other
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"config says {other}, .* tensors are those of {kin[0]}$"):
        Encoder.from_pretrained(tmp_path)
