"""transformers checks the reference: every tower, and the operations that they use."""

import json
import warnings

import ml_dtypes
import numpy as np
import pytest
import torch

from oracle import reference, transformers_towers
from oracle.families import FAMILIES, KINDS, tower
from oracle.tolerance import TOWER, assert_close
from oracle.transformers_towers import cached, expected, hashable

EXACT = 1e-13  # both sides in float64, a few hundred roundings of 1e-16 deep
QUIET = 1e-3  # see transformers_towers.inputs


def compare(got, want, tolerance):
    assert_close(got.tokens, want.tokens, tolerance, "tokens")
    for i, (g, w) in enumerate(zip(got.deepstack, want.deepstack, strict=True)):
        assert_close(g, w, tolerance, f"deepstack {i}")
    for i, (g, w) in enumerate(zip(got.hidden_states, want.hidden_states, strict=True)):
        assert_close(g, w, tolerance, f"hidden state {i}")
    assert_close(got.last_hidden_state, want.last_hidden_state, tolerance, "last hidden state")


every_family = pytest.mark.parametrize("family", list(FAMILIES))
every_kind = pytest.mark.parametrize("family", KINDS)
every_grid = pytest.mark.parametrize("grids", [hashable(grids) for grids in transformers_towers.GRIDS], ids=str)


@every_family
@every_grid
def test_tower_in_float64(family, grids):
    _, _, config, weights = cached(family)
    pixel_values, grid_thw, want = expected(family, grids)
    compare(tower(family, config, weights, pixel_values, grid_thw), want, EXACT)


@every_family
@every_grid
def test_tower_in_float32(family, grids):
    """As people run transformers, without the float64 that `transformers_towers.Unrounded` gives it."""
    model, _, config, weights = cached(family)
    pixel_values, grid_thw, _ = expected(family, grids)
    got = tower(family, config, weights, pixel_values, grid_thw)
    compare(got, transformers_towers.run(model, pixel_values, grid_thw), TOWER)


@every_kind
@pytest.mark.parametrize("head_dim", [64, 72, 80, 128])
def test_head_dims_of_published_towers(family, head_dim):
    model, config, weights = transformers_towers.make(family, depth=2, num_heads=2, hidden_size=2 * head_dim)
    given = transformers_towers.inputs(config, [[1, 10, 14]])
    compare(
        tower(family, config, weights, *given),
        transformers_towers.run(transformers_towers.double(model), *given),
        EXACT,
    )


@every_kind
def test_tower_with_bfloat16_weights(family):
    """Weights in any float type are widened, not the arithmetic narrowed."""
    _, _, config, weights = cached(family)
    pixel_values, grid_thw, _ = expected(family, ((1, 4, 6),))
    stored = {name: w.astype(ml_dtypes.bfloat16) for name, w in weights.items()}
    widened = {name: w.astype(np.float64) for name, w in stored.items()}
    got = tower(family, config, stored, pixel_values, grid_thw)
    compare(got, tower(family, config, widened, pixel_values, grid_thw), 0.0)


# Operations that the towers do not use, or not on such numbers.

WIDE = np.concatenate([np.linspace(-40, 40, 801), [0.0, -1e4, 1e4]])


@pytest.mark.parametrize(
    ("name", "torch_function"),
    [
        ("gelu", torch.nn.GELU()),
        ("gelu_tanh", torch.nn.GELU("tanh")),
        ("silu", torch.nn.SiLU()),
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_activations(name, torch_function):
    want = torch_function(torch.from_numpy(WIDE)).numpy()
    # torch's erf and tanh forms cancel to zero in the far tail, hence absolute in units of x.
    assert_close(getattr(reference, name)(WIDE), want, 1e-15 * (1 + np.abs(WIDE)))


def test_attention_with_shared_heads_and_an_empty_segment():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((30, heads, 8)) for heads in (6, 2, 2))
    got = reference.attention(q, k, v, [0, 12, 12, 30])
    for start, stop in [(0, 12), (12, 30)]:
        q1, k1, v1 = (torch.from_numpy(x[start:stop]).transpose(0, 1) for x in (q, k, v))
        want = torch.nn.functional.scaled_dot_product_attention(q1, k1, v1, enable_gqa=True)
        assert_close(got[start:stop], want.transpose(0, 1).numpy(), EXACT)


def test_vol2col_is_the_convolution():
    """Three frames of 4 x 6 patches, the last one repeated: a matmul over patches equals Conv3d over frames."""
    rng = np.random.default_rng(0)
    frames, w = rng.standard_normal((3, 56, 84, 3)), rng.standard_normal((5, 3, 2, 14, 14))
    volume = torch.from_numpy(frames[[0, 1, 2, 2]].transpose(3, 0, 1, 2).copy())
    want = torch.nn.functional.conv3d(volume, torch.from_numpy(w), stride=(2, 14, 14)).numpy()  # (5, 2, 4, 6)
    rows, cols = reference.coords([(2, 4, 6)], 2).T
    want = want[:, np.repeat([0, 1], 24), rows, cols].T
    assert_close(reference.patch_embed(reference.vol2col(frames, 14), w), want, EXACT)


def test_vol2col_is_the_image_processor():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    image = np.random.default_rng(0).integers(0, 256, (56, 84, 3), dtype=np.uint8)
    asked = Qwen2VLImageProcessorPil(do_rescale=False, do_normalize=False)(image, return_tensors="np")
    patches = reference.vol2col(image[None], 14)
    assert patches.dtype == np.uint8
    np.testing.assert_array_equal(patches, asked["pixel_values"])
    np.testing.assert_array_equal([[1, 4, 6]], asked["image_grid_thw"])


def test_windows_of_many_grids():
    for rows in range(2, 34, 2):
        for cols in range(2, 34, 2):
            grid_thw = np.array([[2, rows, cols], [1, cols, rows]])
            grids = torch.from_numpy(grid_thw)
            want_order, want_seqlens = transformers_towers.get_vision_window_index(grids, 2, 112, 14)
            order, cu_seqlens = reference.window_order(grid_thw, 2, 4)
            np.testing.assert_array_equal(order, want_order)
            np.testing.assert_array_equal(cu_seqlens, want_seqlens)


# Checkpoints: what `transformers_towers.save` writes is what transformers reads.


@pytest.mark.parametrize("family", [name for name, case in FAMILIES.items() if case.prefix])
@pytest.mark.parametrize("shards", [1, 3])
def test_saved_tower_is_read_by_transformers(tmp_path, family, shards):
    model, _, config, _ = cached(family)
    transformers_towers.save(tmp_path, family, model, prefix="", shards=shards)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = type(model).from_pretrained(tmp_path, attn_implementation="eager")
    given = transformers_towers.inputs(config, [[1, 4, 6]])
    compare(transformers_towers.run(again, *given), transformers_towers.run(model, *given), 0.0)


def test_saved_tower_has_the_layout_of_the_hub(tmp_path):
    model, _, _, weights = cached("qwen2_vl")
    transformers_towers.save(tmp_path, "qwen2_vl", model, prefix="model.visual.", dtype="bfloat16", shards=2)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "qwen2_vl"
    assert config["vision_config"]["embed_dim"] == 64
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == {"model.norm.weight", *(f"model.visual.{name}" for name in weights)}
    assert {file.name for file in tmp_path.glob("*.safetensors")} == set(index["weight_map"].values())
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["max_pixels"] == 12845056
