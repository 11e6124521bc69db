"""Configs of towers: completed as transformers does, held against the tensors, refused by name."""

import pytest

from made.presets import tower_shapes
from oracle.families import KINDS, WORDS, entry, model_class, sized
from qwenvis.errors import ConfigError
from qwenvis.models import FAMILIES
from qwenvis.sources.presets import PRESETS

every_family = pytest.mark.parametrize("family", list(FAMILIES))
every_kind = pytest.mark.parametrize("family", KINDS)

# What many derivatives of Qwen2-VL-2B publish.
PARTIAL = {"hidden_size": 1536, "in_chans": 3, "model_type": "qwen2_vl", "spatial_patch_size": 14}


def read(family, values=None, shapes=None):
    return FAMILIES[family].config(values or {}, shapes or {})


def config_class(family):
    """Of transformers."""
    return model_class(family).config_class


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
    stated = PRESETS["qwen2-vl-2b"]
    family, whole, shapes = stated.family, stated.vision_config, tower_shapes(stated)
    assert read(family, PARTIAL, shapes) == read(family, PARTIAL) == read(family, whole, shapes)
    assert (read(family, PARTIAL).head_dim, read(family, PARTIAL).merge_unit) == (80, 4)
    assert read(family, PARTIAL).kernel == (3, 2, 14, 14)


@every_family
def test_families_are_completed_as_transformers_does(family):
    """An empty config is transformers' default, in its own words."""
    want, config = config_class(family)(), read(family)
    words = entry(WORDS, family)
    for name in ("depth", "hidden_size", "num_heads", "patch_size", "spatial_merge_size", "in_channels"):
        assert getattr(config, name) == getattr(want, words.get(name, name)), name
    assert config.hidden_act.removesuffix("_gate") == want.hidden_act
    assert config.rope_theta == want.rope_parameters["rope_theta"]
    for name in ("window_size", "num_position_embeddings", "rms_norm_eps", "layer_norm_eps", "swiglu_limit"):
        assert getattr(config, name) == getattr(want, name, getattr(config, name)), name
    for name in ("fullatt_block_indexes", "deepstack_visual_indexes"):
        assert getattr(config, name) == tuple(getattr(want, name, ()))


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
