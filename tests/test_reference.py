"""transformers checks the reference; and the grids of this comparison catch the mistakes that are usually made."""

import functools
import json
import warnings

import ml_dtypes
import numpy as np
import pytest
import reference
import torch
import truth
from reference import (
    coords,
    frame_cu_seqlens,
    gelu,
    gelu_tanh,
    layer_norm,
    linear,
    patch_embed,
    reorder,
    rms_norm,
    rope_table,
    silu_gate,
    window_order,
)
from tolerance import TOWER, assert_close, relative_error

FAMILIES = list(truth.FAMILIES)
EXACT = 1e-13  # both sides in float64, a few hundred roundings of 1e-16 deep
QUIET = 1e-3  # see truth.inputs


@functools.cache
def made(family):
    model, config, weights = truth.make(family)
    return model, truth.double(model), config, weights


@functools.cache
def judged(family, grids, scale=1.0):
    """Inputs, and what transformers makes of them in float64."""
    _, double, config, _ = made(family)
    given = truth.inputs(config, grids, scale=scale)
    return *given, truth.run(double, *given)


def compare(got, want, tolerance):
    assert_close(got.tokens, want.tokens, tolerance, "tokens")
    for i, (g, w) in enumerate(zip(got.hidden_states, want.hidden_states, strict=True)):
        assert_close(g, w, tolerance, f"hidden state {i}")
    assert_close(got.last_hidden_state, want.last_hidden_state, tolerance, "last hidden state")


def hashable(grids):
    return tuple(map(tuple, grids))


every_family = pytest.mark.parametrize("family", FAMILIES)
every_grid = pytest.mark.parametrize("grids", [hashable(grids) for grids in truth.GRIDS], ids=str)


@every_family
@every_grid
def test_tower_in_float64(family, grids):
    _, _, config, weights = made(family)
    pixel_values, grid_thw, want = judged(family, grids)
    compare(reference.tower(family, config, weights, pixel_values, grid_thw), want, EXACT)


@every_family
@every_grid
def test_tower_in_float32(family, grids):
    """As people run transformers, without the float64 that `truth.Unrounded` gives it."""
    model, _, config, weights = made(family)
    pixel_values, grid_thw, _ = judged(family, grids)
    got = reference.tower(family, config, weights, pixel_values, grid_thw)
    compare(got, truth.run(model, pixel_values, grid_thw), TOWER)


@every_family
@pytest.mark.parametrize("head_dim", [64, 72, 80, 128])
def test_head_dims_of_published_towers(family, head_dim):
    width = {"qwen2_vl": "embed_dim", "qwen2_5_vl": "hidden_size"}[family]
    model, config, weights = truth.make(family, depth=2, num_heads=2, **{width: 2 * head_dim})
    given = truth.inputs(config, [[1, 10, 14]])
    compare(reference.tower(family, config, weights, *given), truth.run(truth.double(model), *given), EXACT)


@every_family
def test_tower_with_bfloat16_weights(family):
    """Weights in any float type are widened, not the arithmetic narrowed."""
    _, _, config, weights = made(family)
    pixel_values, grid_thw, _ = judged(family, ((1, 4, 6),))
    stored = {name: w.astype(ml_dtypes.bfloat16) for name, w in weights.items()}
    widened = {name: w.astype(np.float64) for name, w in stored.items()}
    got = reference.tower(family, config, stored, pixel_values, grid_thw)
    compare(got, reference.tower(family, config, widened, pixel_values, grid_thw), 0.0)


# Operations that the towers do not use, or not on such numbers.

WIDE = np.concatenate([np.linspace(-40, 40, 801), [0.0, -1e4, 1e4]])


@pytest.mark.parametrize(
    ("name", "judge"),
    [
        ("gelu", torch.nn.GELU()),
        ("gelu_tanh", torch.nn.GELU("tanh")),
        ("silu", torch.nn.SiLU()),
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_activations(name, judge):
    want = judge(torch.from_numpy(WIDE)).numpy()
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
            want_order, want_seqlens = truth.get_vision_window_index(torch.from_numpy(grid_thw), 2, 112, 14)
            order, cu_seqlens = reference.window_order(grid_thw, 2, 4)
            np.testing.assert_array_equal(order, want_order)
            np.testing.assert_array_equal(cu_seqlens, want_seqlens)


# Mistakes: each is put into the reference, and the comparison above must notice.

BOTH = ("qwen2_vl", "qwen2_5_vl")
MISTAKES = {
    "merger with the tanh GELU": (BOTH, "gelu", gelu_tanh),
    "GELU for quick GELU": (["qwen2_vl"], "quick_gelu", gelu),
    "gate and up swapped": (["qwen2_5_vl"], "silu_gate", lambda gate, up: silu_gate(up, gate)),
    "biases forgotten": (BOTH, "linear", lambda x, w, b=None: linear(x, w)),
    "norm weights forgotten": (["qwen2_5_vl"], "rms_norm", lambda x, w: rms_norm(x, np.ones_like(w))),
    "norm biases forgotten": (["qwen2_vl"], "layer_norm", lambda x, w, b: layer_norm(x, w, np.zeros_like(b))),
    "qkv interleaved by head": (
        BOTH,
        "split_qkv",
        lambda qkv, heads: list(qkv.reshape(len(qkv), heads, 3, -1).transpose(2, 0, 1, 3)),
    ),
    "patch as (frame, channel, y, x)": (BOTH, "patch_embed", lambda x, w: patch_embed(x, w.swapaxes(1, 2))),
    "rope with rows and columns swapped": (BOTH, "coords", lambda grid, merge_size: coords(grid, merge_size)[:, ::-1]),
    "rope in raster order": (BOTH, "coords", lambda grid, merge_size: coords(grid, 1)),
    "rope frequencies over the whole head": (BOTH, "rope_table", lambda at, head_dim: rope_table(at, head_dim, 100.0)),
    "rope left in natural order": (
        ["qwen2_5_vl"],
        "reorder",
        lambda rows, order, unit: rows if rows.dtype.kind == "i" else reorder(rows, order, unit),
    ),
    "tokens left in window order": (
        ["qwen2_5_vl"],
        "reorder",
        lambda rows, order, unit: rows if unit == 1 else reorder(rows, order, unit),
    ),
    "attention across frames": (BOTH, "frame_cu_seqlens", lambda grid: np.cumsum([0, *np.prod(grid, axis=1)])),
    "windows in every block": (["qwen2_5_vl"], "frame_cu_seqlens", lambda grid: window_order(grid, 2, 4)[1]),
    "windows in no block": (
        ["qwen2_5_vl"],
        "window_order",
        lambda grid, merge_size, side: (window_order(grid, merge_size, side)[0], frame_cu_seqlens(grid)),
    ),
}
HIDDEN_BY_A_SMALL_STILL = [
    "rope left in natural order",
    "tokens left in window order",
    "attention across frames",
    "windows in every block",
    "windows in no block",
]


def distance(family, grids, scale=1.0):
    """The largest relative error of the reference on these grids, over all that a tower returns."""
    _, _, config, weights = made(family)
    pixel_values, grid_thw, want = judged(family, grids, scale)
    got = reference.tower(family, config, weights, pixel_values, grid_thw)
    pairs = [(got.tokens, want.tokens), *zip(got.hidden_states, want.hidden_states, strict=True)]
    return max(relative_error(g, w) for g, w in pairs)


@pytest.mark.parametrize(
    ("family", "mistake"), [(family, mistake) for mistake, (families, *_) in MISTAKES.items() for family in families]
)
def test_mistake_is_caught(monkeypatch, family, mistake):
    _, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(reference, name, wrong)
    assert max(distance(family, hashable(grids)) for grids in truth.GRIDS) > TOWER


@pytest.mark.parametrize(("family", "norm"), [("qwen2_vl", "layer_norm"), ("qwen2_5_vl", "rms_norm")])
def test_wrong_eps_is_caught(monkeypatch, family, norm):
    """By quiet inputs: on ordinary ones 1e-5 for 1e-6 is no more than float32 noise."""
    grids = ((1, 10, 14),)
    assert distance(family, grids, QUIET) < EXACT
    monkeypatch.setattr(reference, norm, functools.partial(getattr(reference, norm), eps=1e-5))
    assert distance(family, grids, QUIET) > TOWER


@pytest.mark.parametrize("mistake", HIDDEN_BY_A_SMALL_STILL)
def test_why_the_grids_are_large(monkeypatch, mistake):
    """One frame of 8 x 8 patches is one window: it would let these pass."""
    _, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(reference, name, wrong)
    assert distance("qwen2_5_vl", ((1, 8, 8),)) < EXACT


# Checkpoints: what `truth.save` writes is what transformers reads.


@every_family
@pytest.mark.parametrize("shards", [1, 3])
def test_saved_tower_is_read_by_transformers(tmp_path, family, shards):
    model, _, config, _ = made(family)
    truth.save(tmp_path, family, model, prefix="", shards=shards)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = type(model).from_pretrained(tmp_path, attn_implementation="eager")
    given = truth.inputs(config, [[1, 4, 6]])
    compare(truth.run(again, *given), truth.run(model, *given), 0.0)


def test_saved_tower_has_the_layout_of_the_hub(tmp_path):
    model, _, _, weights = made("qwen2_vl")
    truth.save(tmp_path, "qwen2_vl", model, prefix="model.visual.", dtype="bfloat16", shards=2)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "qwen2_vl"
    assert config["vision_config"]["embed_dim"] == 64
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == {"model.norm.weight", *(f"model.visual.{name}" for name in weights)}
    assert {file.name for file in tmp_path.glob("*.safetensors")} == set(index["weight_map"].values())
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["max_pixels"] == 12845056
