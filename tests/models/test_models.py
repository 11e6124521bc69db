"""Whole towers: all that they return, against the float64 reference and transformers, whatever the shape or file."""

import copy
import functools
import itertools

import numpy as np
import pytest
import torch

from made.presets import same_bits
from made.tile_sizes import ISAS
from oracle import transformers_towers
from oracle.families import FAMILIES, KINDS, entry, fraction, tower
from oracle.tolerance import TOWER, assert_close
from oracle.transformers_towers import hashable
from qwenvis import Encoder
from qwenvis.nn import layers

BATCH = ((1, 6, 10), (2, 12, 18))

every_family = pytest.mark.parametrize("family", list(FAMILIES))
every_kind = pytest.mark.parametrize("family", KINDS)
every_grid = pytest.mark.parametrize("grids", list(map(hashable, transformers_towers.GRIDS)), ids=str)


@functools.cache
def made(family, **overrides):
    """`transformers_towers.make`, its lists given as tuples."""
    sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in overrides.items()}
    return transformers_towers.make(family, **sizes)


@functools.cache
def expected(family, grids, scale=1.0, **overrides):
    """(pixel_values, grid_thw, Features) of the reference."""
    _, config, weights = made(family, **overrides)
    given = transformers_towers.inputs(config, grids, scale=scale)
    return *given, tower(family, config, weights, *given)


@functools.cache
def stored(family, **overrides):
    """The directory of a checkpoint of `made`."""
    return transformers_towers.kept(family, made(family, **overrides)[0])


def loaded(family, **overrides):
    """An encoder of `made`, through a checkpoint on disk."""
    return Encoder.from_pretrained(stored(family, **overrides), threads=1)


def compare(out, want):
    assert_close(out.embeddings, want.tokens, TOWER, "tokens")
    for i, (got, deepstack) in enumerate(zip(out.deepstack, want.deepstack, strict=True)):
        assert_close(got, deepstack, TOWER, f"deepstack {i}")
    assert_close(out.last_hidden_state, want.last_hidden_state, TOWER, "last_hidden_state")
    for layer, (got, state) in enumerate(zip(out.hidden_states, want.hidden_states, strict=True)):
        assert_close(got, state, TOWER, f"hidden state {layer}")


@every_kind
@every_grid
def test_tower_is_the_reference(isa, family, grids):
    pixel_values, grid_thw, want = expected(family, grids)
    encoder = loaded(family)
    assert (encoder.family, encoder.isa, encoder.format) == (family, isa, "f32")
    compare(encoder(pixel_values, grid_thw, hidden_states=True), want)
    assert same_bits(
        encoder(pixel_values, grid_thw).embeddings, encoder(pixel_values, grid_thw, hidden_states=True).embeddings
    )


@every_family
@every_grid
def test_tower_is_transformers(family, grids):
    """In float32, as people run it."""
    pixel_values, grid_thw, _ = expected(family, grids)
    want = transformers_towers.run(made(family)[0], pixel_values, grid_thw)
    compare(loaded(family)(pixel_values, grid_thw, hidden_states=True), want)


@every_kind
@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_small_and_large_pixel_values(isa, family, scale):
    """At 1e-3 the variances that the first norms see are as small as their eps."""
    pixel_values, grid_thw, want = expected(family, BATCH, scale)
    compare(loaded(family)(pixel_values, grid_thw, hidden_states=True), want)


@every_kind
@pytest.mark.parametrize("head_dim", [4, 20, 64, 72, 80, 128, 256])
def test_head_dims(isa, family, head_dim):
    shape = {"depth": 2, "num_heads": 2, "hidden_size": 2 * head_dim}
    pixel_values, grid_thw, want = expected(family, ((1, 10, 14),), **shape)
    compare(loaded(family, **shape)(pixel_values, grid_thw, hidden_states=True), want)


SHAPES = [
    ("qwen2_vl", {"mlp_ratio": 3}),
    ("qwen2_vl", {"out_hidden_size": 33}),
    ("qwen2_vl", {"depth": 1, "num_heads": 1}),
    ("qwen2_vl", {"patch_size": 16}),
    ("qwen2_vl", {"temporal_patch_size": 1}),
    ("qwen2_vl", {"temporal_patch_size": 3, "patch_size": 5}),
    ("qwen2_vl", {"spatial_merge_size": 1}),
    ("qwen2_vl", {"in_channels": 1}),
    ("qwen2_5_vl", {"intermediate_size": 1}),
    ("qwen2_5_vl", {"intermediate_size": 855}),
    ("qwen2_5_vl", {"intermediate_size": 269, "out_hidden_size": 7}),
    ("qwen2_5_vl", {"window_size": 28}),
    ("qwen2_5_vl", {"window_size": 60}),
    ("qwen2_5_vl", {"window_size": 140}),
    ("qwen2_5_vl", {"window_size": 10_000}),
    ("qwen2_5_vl", {"patch_size": 16, "spatial_merge_size": 1}),
    ("qwen2_5_vl", {"fullatt_block_indexes": ()}),
    ("qwen2_5_vl", {"fullatt_block_indexes": (0, 1, 2, 3)}),
    ("qwen2_5_omni", {"num_heads": 2, "window_size": 56}),
    ("qwen3_vl", {"deepstack_visual_indexes": ()}),
    ("qwen3_vl", {"deepstack_visual_indexes": (3, 0, 1)}),
    ("qwen3_vl", {"deepstack_visual_indexes": (1, 1, 9)}),
    ("qwen3_vl", {"num_position_embeddings": 1}),
    ("qwen3_vl", {"num_position_embeddings": 150, "patch_size": 14}),
    ("qwen3_vl", {"intermediate_size": 269, "out_hidden_size": 7}),
    ("qwen3_omni_moe", {"deepstack_visual_indexes": (2,), "temporal_patch_size": 1}),
    ("glm4v", {"image_size": 14}),
    ("glm4v", {"attention_bias": True, "rms_norm_eps": 1e-3}),
    ("glm4v", {"intermediate_size": 7, "out_hidden_size": 33}),
    ("glm_ocr", {"attention_bias": False, "in_channels": 1}),
    ("glm5_next", {"swiglu_limit": 0.1, "projection_intermediate_size": 269}),
    ("glm5_next", {"swiglu_limit": 100.0, "rms_norm_eps": 1e-3}),
    ("paddleocr_vl", {"image_size": 30, "layer_norm_eps": 1e-3}),
    ("paddleocr_vl", {"patch_size": 16, "intermediate_size": 855}),
]


@pytest.mark.parametrize(("family", "shape"), SHAPES, ids=str)
def test_other_shapes(isa, family, shape):
    """Sizes that no tile divides, kernels, windows: every number in the config matters."""
    pixel_values, grid_thw, want = expected(family, ((2, 12, 10), (1, 4, 18)), **shape)
    compare(loaded(family, **shape)(pixel_values, grid_thw, hidden_states=True), want)


# Nothing divides anything: heads, lanes of a half, inner sizes, windows, grids of positions.
ODD = {"depth": 3, "num_heads": 3, "hidden_size": 3 * 36, "intermediate_size": 37, "out_hidden_size": 33}
ODD_PARTS = {
    "qwen2_vl": {"intermediate_size": None, "mlp_ratio": 3, "hidden_act": "gelu_pytorch_tanh"},
    "qwen2_5_vl": {"window_size": 75, "fullatt_block_indexes": (2, 0), "patch_size": 7},
    "qwen2_5_omni": {"window_size": 75, "fullatt_block_indexes": (), "in_channels": 4},
    "exaone4_5": {"num_heads": 9, "num_key_value_heads": 3, "hidden_size": 9 * 12, "fullatt_block_indexes": (1,)},
    "qwen3_vl": {"num_position_embeddings": 83, "deepstack_visual_indexes": (2, 0, 1), "hidden_act": "gelu"},
    "qwen3_vl_moe": {"num_position_embeddings": 49, "deepstack_visual_indexes": (2,), "temporal_patch_size": 3},
    "qwen3_omni_moe": {"num_position_embeddings": 121, "deepstack_visual_indexes": (1, 0, 7)},
    "qwen3_5": {"num_position_embeddings": 25, "hidden_act": "quick_gelu"},
    "qwen3_5_moe": {"num_position_embeddings": 26, "in_channels": 1},
    "qwen4_exp": {"num_position_embeddings": 169, "patch_size": 10},
    "cohere_compass": {"num_position_embeddings": 9, "deepstack_visual_indexes": (2, 1)},
    "glm4v": {"image_size": 14 * 7 + 9, "rms_norm_eps": 1e-2},
    "glm46v": {"image_size": 10 * 3 + 1, "patch_size": 10, "attention_bias": True},
    "glm4v_moe": {"image_size": 14 * 9, "in_channels": 4},
    "glm_ocr": {"rms_norm_eps": 1e-2, "temporal_patch_size": 3},
    "glm5_next": {"attention_bias": False, "projection_intermediate_size": 119, "swiglu_limit": 0.3},
    "paddleocr_vl": {"image_size": 14 * 5 + 3, "layer_norm_eps": 1e-3, "hidden_act": "quick_gelu"},
}


@every_family
def test_odd_sizes_are_those_of_transformers(family):
    shape = {name: value for name, value in {**ODD, **entry(ODD_PARTS, family)}.items() if value is not None}
    given = transformers_towers.inputs(made(family, **shape)[1], [[2, 14, 22], [1, 2, 34], [3, 10, 6]], seed=5)
    out = loaded(family, **shape)(*given, hidden_states=True)
    compare(out, transformers_towers.run(made(family, **shape)[0], *given))


@every_kind
def test_three_by_three_merge(isa, family):
    pixel_values, grid_thw, want = expected(family, ((2, 9, 12), (1, 3, 27)), spatial_merge_size=3)
    compare(loaded(family, spatial_merge_size=3)(pixel_values, grid_thw, hidden_states=True), want)


@every_kind
def test_another_base_of_the_angles(tmp_path, family):
    model, config, _ = transformers_towers.make(family, rope_parameters={"rope_type": "axial", "rope_theta": 500.0})
    transformers_towers.save(tmp_path, family, model)
    given = transformers_towers.inputs(config, BATCH)
    out = Encoder.from_pretrained(tmp_path, threads=1)(*given, hidden_states=True)
    compare(out, transformers_towers.run(model, *given))


# Stills: patches whose temporal slices are equal take half of the patch embedding.


def columns_multiplied(monkeypatch):
    """The sums' lengths of all products from here on."""
    columns, linear = [], layers.ops.linear
    monkeypatch.setattr(layers.ops, "linear", lambda x, w, *a, **k: columns.append(x.shape[1]) or linear(x, w, *a, **k))
    return columns


@every_kind
def test_stills_and_moving_items_in_one_batch(isa, family):
    _, config, weights = made(family)
    pixel_values, grid_thw = transformers_towers.inputs(
        config, [[1, 6, 10], [2, 4, 6], [1, 10, 10], [3, 4, 4], [1, 2, 2]]
    )
    bounds = np.cumsum([0, *grid_thw.prod(axis=1)])
    items = [slice(*pair) for pair in itertools.pairwise(bounds)]
    for item in (0, 2, 3):
        pixel_values[items[item]] = transformers_towers.still(config, pixel_values[items[item]])
    pixel_values[items[2]][-1, -1] += 1  # one entry of the last patch differs: no still
    encoder = loaded(family)
    out = encoder(pixel_values, grid_thw, hidden_states=True)
    compare(out, tower(family, config, weights, pixel_values, grid_thw))
    for item, together in zip(items, out.items(), strict=True):
        alone = encoder(pixel_values[item], together.grid_thw, hidden_states=True)
        assert same_bits(alone.embeddings, together.embeddings)
        assert all(map(same_bits, alone.hidden_states, together.hidden_states))
        assert all(map(same_bits, alone.deepstack, together.deepstack))


@pytest.mark.parametrize("family", [name for name in KINDS if name != "paddleocr_vl"])
def test_a_still_takes_half_of_the_patch_embedding(monkeypatch, family):
    _, config, _ = made(family)
    encoder, (pixel_values, grid_thw) = loaded(family), transformers_towers.inputs(config, [[1, 6, 10]])
    columns = columns_multiplied(monkeypatch)
    encoder(pixel_values, grid_thw)
    encoder(transformers_towers.still(config, pixel_values), grid_thw)
    whole = np.prod(encoder.config.kernel)
    assert (columns.count(whole), columns.count(whole // 2)) == (1, 1)


# Checkpoints: what differs on disk but not in the stored numbers makes no difference.


@functools.cache
def rounded(family, dtype):
    """The tower with its weights rounded to a torch dtype, in float32: (torch model, its checkpoint, tokens)."""
    model = copy.deepcopy(made(family)[0])
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype)).float()
    pixel_values, grid_thw, _ = expected(family, BATCH)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    want = tower(family, made(family)[1], weights, pixel_values, grid_thw)
    return model, transformers_towers.kept(family, model), want.tokens


@pytest.mark.parametrize("family", [name for name, case in FAMILIES.items() if case.prefix])
@pytest.mark.parametrize("prefix", ["model.visual.", "vlm.visual.", "thinker.visual.", ""])
def test_prefixes(tmp_path, family, prefix):
    pixel_values, grid_thw, _ = expected(family, BATCH)
    want = loaded(family)(pixel_values, grid_thw).embeddings
    transformers_towers.save(tmp_path, family, made(family)[0], prefix=prefix)
    encoder = Encoder.from_pretrained(tmp_path, threads=1)
    assert encoder.spec.checkpoint.prefix == prefix
    assert same_bits(encoder(pixel_values, grid_thw).embeddings, want)


@pytest.mark.parametrize(
    ("isa", "family", "dtype", "shards"),
    fraction(2, ISAS, KINDS, ["float32", "float16", "bfloat16"], [1, 3]),
    indirect=["isa"],
)
def test_stored_formats(tmp_path, isa, family, dtype, shards):
    """Weights of 16 bits are widened and nothing else: as the same numbers stored in float32."""
    model, wide, want = rounded(family, dtype)
    pixel_values, grid_thw, _ = expected(family, BATCH)
    transformers_towers.save(tmp_path, family, model, dtype=dtype, shards=shards)
    same, got = (Encoder.from_pretrained(path, threads=2)(pixel_values, grid_thw) for path in (wide, tmp_path))
    assert same_bits(same.embeddings, got.embeddings)
    assert_close(got.embeddings, want, TOWER)
