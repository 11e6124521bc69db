"""The usual mistakes, put into the reference one at a time: its comparison with transformers must catch each."""

import numpy as np
import pytest

from oracle import reference, transformers_towers
from oracle.families import KINDS, tower
from oracle.reference import (
    attention,
    centres,
    coords,
    corners,
    frame_cu_seqlens,
    gelu,
    gelu_tanh,
    hat,
    keys,
    layer_norm,
    learned_positions,
    linear,
    patch_embed,
    reorder,
    rms_norm,
    rope_table,
    silu_gate,
    window_order,
)
from oracle.tolerance import TOWER, relative_error
from oracle.transformers_towers import cached, expected, hashable

EXACT = 1e-13  # both sides in float64, a few hundred roundings of 1e-16 deep
QUIET = 1e-3  # see transformers_towers.inputs

TWO, FIVE, THREE, GLM = "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"
LAYER_NORMED, DEEP = [TWO, THREE, "paddleocr_vl"], [THREE, "qwen3_omni_moe", "cohere_compass"]


def heads_in_turns(q, k, v, cu_seqlens):
    """Heads of k and v shared by every second head of q, not by neighbours."""
    turns = (1, q.shape[1] // k.shape[1], 1)
    return attention(q, np.tile(k, turns), np.tile(v, turns), cu_seqlens)


def interleaved(qkv, heads, key_value_heads):
    """q, k and v of a head side by side, head after head."""
    return list(qkv.reshape(len(qkv), heads, 3, -1).transpose(2, 0, 1, 3))


MISTAKES = {
    "merger with the tanh GELU": (KINDS, "gelu", gelu_tanh),
    "GELU for quick GELU": ([TWO], "quick_gelu", gelu),
    "GELU for its tanh form": ([THREE, "paddleocr_vl"], "gelu_tanh", gelu),
    "gate and up swapped": ([FIVE, GLM, "glm5_next"], "silu_gate", lambda gate, up: silu_gate(up, gate)),
    "gate and up not clamped": (["glm5_next"], "clamped_gate", lambda gate, up, limit: silu_gate(gate, up)),
    "biases forgotten": (KINDS, "linear", lambda x, w, b=None: linear(x, w)),
    "norm weights forgotten": (
        [FIVE, GLM, "glm_ocr"],
        "rms_norm",
        lambda x, w, *eps: rms_norm(x, np.ones_like(w), *eps),
    ),
    "norm biases forgotten": (
        [*LAYER_NORMED, GLM],
        "layer_norm",
        lambda x, w, b, *eps: layer_norm(x, w, np.zeros_like(b), *eps),
    ),
    "qkv interleaved by head": ([TWO, FIVE, THREE, GLM], "split_qkv", interleaved),
    "heads of k and v shared in turns": (["exaone4_5"], "attention", heads_in_turns),
    "patch as (frame, channel, y, x)": (
        [TWO, FIVE, THREE, GLM],
        "patch_embed",
        lambda x, w, b=None: patch_embed(x, w.swapaxes(1, 2), b),
    ),
    "rope with rows and columns swapped": (KINDS, "coords", lambda grid, merge_size: coords(grid, merge_size)[:, ::-1]),
    "rope in raster order": ([TWO, FIVE, THREE, GLM], "coords", lambda grid, merge_size: coords(grid, 1)),
    "rope in merge-block order": (["paddleocr_vl"], "coords", lambda grid, merge_size: coords(grid, 2)),
    "rope frequencies over the whole head": (KINDS, "rope_table", lambda at, head_dim: rope_table(at, head_dim, 100.0)),
    "rope left in natural order": (
        [FIVE],
        "reorder",
        lambda rows, order, unit: rows if rows.dtype.kind == "i" else reorder(rows, order, unit),
    ),
    "tokens left in window order": (
        [FIVE],
        "reorder",
        lambda rows, order, unit: rows if unit == 1 else reorder(rows, order, unit),
    ),
    "attention across frames": (KINDS, "frame_cu_seqlens", lambda grid: np.cumsum([0, *np.prod(grid, axis=1)])),
    "windows in every block": ([FIVE], "frame_cu_seqlens", lambda grid: window_order(grid, 2, 4)[1]),
    "windows in no block": (
        [FIVE],
        "window_order",
        lambda grid, merge_size, side: (window_order(grid, merge_size, side)[0], frame_cu_seqlens(grid)),
    ),
    "positions without align_corners": ([THREE], "corners", centres),
    "positions with align_corners": (["paddleocr_vl"], "centres", corners),
    "positions in raster order": (
        [THREE, GLM],
        "learned_positions",
        lambda table, grid, merge_size, *how: learned_positions(table, grid, 1, *how),
    ),
    "cubic positions with another constant": ([GLM], "keys", lambda x: keys(x, -0.5)),
    "linear positions for cubic ones": ([GLM], "keys", hat),
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
    _, _, config, weights = cached(family)
    pixel_values, grid_thw, want = expected(family, grids, scale)
    got = tower(family, config, weights, pixel_values, grid_thw)
    lists = (got.hidden_states, want.hidden_states), (got.deepstack, want.deepstack)
    pairs = [(got.tokens, want.tokens), *(pair for each in lists for pair in zip(*each, strict=True))]
    return max(relative_error(g, w) for g, w in pairs)


@pytest.mark.parametrize(
    ("family", "mistake"), [(family, mistake) for mistake, (families, *_) in MISTAKES.items() for family in families]
)
def test_mistake_is_caught(monkeypatch, family, mistake):
    _, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(reference, name, wrong)
    assert any(distance(family, hashable(grids)) > TOWER for grids in transformers_towers.GRIDS)


@pytest.mark.parametrize("family", DEEP)
def test_deepstack_normed_before_it_is_joined(monkeypatch, family):
    """Seen in deepstack alone."""

    def too_early(x, w, b, *eps):
        return layer_norm(x.reshape(4 * len(x), -1), w[: len(w) // 4], b[: len(b) // 4], *eps).reshape(x.shape)

    def wrong(x, w, b, *eps):
        return (too_early if len(w) == 4 * 64 else layer_norm)(x, w, b, *eps)

    monkeypatch.setattr(reference, "layer_norm", wrong)
    _, _, config, weights = cached(family)
    pixel_values, grid_thw, want = expected(family, hashable(transformers_towers.GRIDS[1]))
    got = tower(family, config, weights, pixel_values, grid_thw)
    assert relative_error(got.tokens, want.tokens) < EXACT
    assert min(map(relative_error, got.deepstack, want.deepstack)) > TOWER


@pytest.mark.parametrize(
    ("family", "norm"), [(TWO, "layer_norm"), (FIVE, "rms_norm"), (THREE, "layer_norm"), ("paddleocr_vl", "layer_norm")]
)
def test_wrong_eps_is_caught(monkeypatch, family, norm):
    """By quiet inputs: on ordinary ones 1e-5 for 1e-6 is no more than float32 noise."""
    grids, right = ((1, 10, 14),), getattr(reference, norm)
    assert distance(family, grids, QUIET) < EXACT
    monkeypatch.setattr(reference, norm, lambda *args: right(*args[: 3 if norm == "layer_norm" else 2], 1e-5))
    assert distance(family, grids, QUIET) > TOWER


@pytest.mark.parametrize("mistake", HIDDEN_BY_A_SMALL_STILL)
def test_why_the_grids_are_large(monkeypatch, mistake):
    """One frame of 8 x 8 patches is one window: it would let these pass."""
    _, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(reference, name, wrong)
    assert distance("qwen2_5_vl", ((1, 8, 8),)) < EXACT
