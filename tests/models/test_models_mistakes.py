"""The usual mistakes, put into the package one at a time: the comparison of test_models must notice each."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from oracle import transformers_towers
from oracle.families import KINDS, tower
from oracle.tolerance import TOWER, relative_error
from qwenvis import Encoder, geometry, ops
from qwenvis.models import qwen2_5_vl, qwen2_vl, qwen3_vl
from qwenvis.nn import blocks, layers, mergers

GRIDS = [[3, 10, 14], [1, 4, 18]]

coords, rope, window_labels = geometry.coords, geometry.rope, geometry.window_labels
attention, embed = ops.attention, layers.PatchEmbed.__call__


@functools.cache
def judged(family):
    """(directory, (pixel_values, grid_thw, what the reference returns) at two scales of the pixel_values)."""
    model, config, weights = transformers_towers.make(family)
    given = [transformers_towers.inputs(config, GRIDS, scale=scale) for scale in (1.0, 1e-3)]
    cases = [(*each, tower(family, config, weights, *each)) for each in given]
    return transformers_towers.kept(family, model), cases


def error(family):
    """The larger of the relative errors at the two scales; at the small one, eps shows."""
    directory, cases = judged(family)
    encoder = Encoder.from_pretrained(directory, threads=1)
    errors = []
    for *given, want in cases:
        out = encoder(*given)
        pairs = [(out.embeddings, want.tokens), *zip(out.deepstack, want.deepstack, strict=True)]
        errors += [relative_error(*pair) for pair in pairs]
    return max(errors)


@pytest.mark.parametrize("family", KINDS)
def test_there_is_none(family):
    assert error(family) <= TOWER


def patched(owner, name, mutant):
    """A mistake in one function."""
    return lambda monkeypatch: monkeypatch.setattr(owner, name, mutant)


def activation(layer, index, name):
    """A layer that is built with another activation."""

    def build(self, *args):
        original(self, *args)
        getattr(self, index).activation = name

    original = layer.__init__
    return patched(layer, "__init__", build)


def forgotten(layer, name, value):
    """A parameter that keeps the value it has before training."""

    def call(self, *args, **kwargs):
        getattr(self, name)[:] = value
        return original(self, *args, **kwargs)

    original = layer.__call__
    return patched(layer, "__call__", call)


def eps(monkeypatch):
    for module in (qwen2_vl, qwen2_5_vl, qwen3_vl):
        monkeypatch.setattr(module, "EPS", 1e-5)


def unclamped(monkeypatch):
    activate = ops.activate
    monkeypatch.setattr(ops, "activate", lambda x, out, *, activation, limit=0: activate(x, out, activation=activation))


def heads_left_as_they_are(monkeypatch):
    monkeypatch.setattr(blocks.NormedAttention, "heads", blocks.Attention.heads)


def normed_before_it_is_joined(monkeypatch):
    """Of the weights over a merge unit, those of its first patch for all."""

    def join(self, x, out, ws):
        d = x.shape[1]
        return ops.layer_norm(x, self.norm.weight[:d].copy(), self.norm.bias[:d].copy(), self.norm.eps, out)

    monkeypatch.setattr(mergers.DeepstackMerger, "join", join)


def interpolated_by(name):
    """Another way to interpolate the learned positions."""

    def put_in(monkeypatch):
        right, mode = geometry.interpolate_pos_embed, getattr(geometry, name)
        monkeypatch.setattr(
            geometry, "interpolate_pos_embed", lambda grid, merge_size, side, _: right(grid, merge_size, side, mode)
        )

    return put_in


def positions_in_raster_order(monkeypatch):
    right = geometry.interpolate_pos_embed
    monkeypatch.setattr(geometry, "interpolate_pos_embed", lambda grid, merge_size, *how: right(grid, 1, *how))


def downsampled_by_columns(monkeypatch):
    """The kernel's columns before its rows."""
    pack = mergers.Downsample._pack
    monkeypatch.setattr(mergers.Downsample, "_pack", lambda self, array: pack(self, array.swapaxes(2, 3)))


def natural_rope(monkeypatch):
    """The angles of patches in their natural order, though the sequence is in window order."""
    seen = []
    monkeypatch.setattr(geometry, "coords", lambda *args: seen.append(coords(*args)) or seen[-1])
    monkeypatch.setattr(geometry, "rope", lambda places, *args: rope(seen[0], *args))


def window_order_out(monkeypatch):
    monkeypatch.setattr(qwen2_5_vl, "ops", SimpleNamespace(gather=lambda x, index, out: np.copyto(out, x)))


def raster(grid_thw, merge_size):
    """Every patch of a frame row by row, whatever the merge units."""
    return np.concatenate([np.argwhere(np.ones((h, w))) for t, h, w in grid_thw for _ in range(t)])


def interleaved_heads(qkv, table, cu_seqlens, out, scratch, **format):
    """q, k and v of a head side by side, head after head."""
    n, heads, d = qkv[0].shape
    whole = np.concatenate([part.reshape(n, -1) for part in qkv], axis=1).reshape(n, heads, 3, d)
    return attention([whole[:, :, i] for i in range(3)], table, cu_seqlens, out, scratch, **format)


def interleaved_lanes(qkv, table, cu_seqlens, out, scratch, **format):
    """Rope of neighbouring lanes, as other models have it."""
    d = qkv[0].shape[2]
    lanes = np.arange(d).reshape(-1, 2).T.ravel()
    q, k = (np.ascontiguousarray(part[:, :, lanes]) for part in qkv[:2])
    return attention((q, k, qkv[2]), table, cu_seqlens, out, scratch, **format)


def frames_first(self, patches, *args):
    """Rows of pixel_values read as (frame, channel, y, x)."""
    channels, frames, pixels = self.parts
    swapped = patches.reshape(-1, frames, channels, pixels).swapaxes(1, 2)
    return embed(self, np.ascontiguousarray(swapped).reshape(patches.shape), *args)


def item_of_patch(grid_thw):
    return np.repeat(np.arange(len(grid_thw)), grid_thw.prod(axis=1))


def larger_windows(places, frames, window):
    """Windows of twice the side."""
    return window_labels(places, frames, 2 * window)


TWO, FIVE, THREE, GLM, CLAMPED, PADDLE = KINDS
LAYER, GATED, PAIRED = [TWO, THREE, PADDLE], [FIVE, GLM], [TWO, FIVE, THREE, GLM]
MISTAKES = {
    "merger with the tanh GELU": (
        [TWO, FIVE, THREE, PADDLE],
        activation(mergers.PatchMerger, "fc1", "gelu_pytorch_tanh"),
    ),
    "GELU for quick GELU, or for its tanh form": (LAYER, activation(layers.Mlp, "fc1", "gelu")),
    "gate and up not clamped": ([CLAMPED], unclamped),
    "another eps": ([TWO, FIVE, THREE], eps),
    "norm biases forgotten": ([*LAYER, GLM], forgotten(layers.LayerNorm, "bias", 0)),
    "norm weights forgotten": (GATED, forgotten(layers.RMSNorm, "weight", 1)),
    "rope with rows and columns swapped": (
        KINDS,
        patched(geometry, "rope", lambda places, *args: rope(places[:, ::-1], *args)),
    ),
    "rope in raster order": (PAIRED, patched(geometry, "coords", raster)),
    "patches by merge units": ([PADDLE], patched(geometry, "raster_order", lambda grid, _: np.arange(492))),
    "rope frequencies over the whole head": (
        KINDS,
        patched(geometry, "rope", lambda places, d, theta: rope(places, d, theta**0.5)),
    ),
    "rope of neighbouring lanes": (KINDS, patched(ops, "attention", interleaved_lanes)),
    "rope left in natural order": ([FIVE], natural_rope),
    "tokens left in window order": ([FIVE], window_order_out),
    "attention across frames": (KINDS, patched(geometry, "frames", item_of_patch)),
    "windows in no block": ([FIVE], patched(geometry, "window_labels", lambda places, frames, window: frames)),
    "windows of another side": ([FIVE], patched(geometry, "window_labels", larger_windows)),
    "q, k and v interleaved by head": (PAIRED, patched(ops, "attention", interleaved_heads)),
    "patches as (frame, channel, y, x)": (PAIRED, patched(layers.PatchEmbed, "__call__", frames_first)),
    "everything taken for a still": (PAIRED, patched(layers.PatchEmbed, "is_still", lambda self, patches: True)),
    "positions without align_corners": ([THREE], interpolated_by("bilinear")),
    "positions with align_corners": ([PADDLE], interpolated_by("bilinear_align_corners")),
    "linear positions for cubic ones": ([GLM], interpolated_by("bilinear")),
    "positions in raster order": ([THREE, GLM, PADDLE], positions_in_raster_order),
    "positions forgotten": (
        [THREE, GLM, PADDLE],
        patched(layers.PositionTable, "__call__", lambda self, index, weight, x: x),
    ),
    "heads of q and k not normed": ([CLAMPED], heads_left_as_they_are),
    "deepstack normed before it is joined": ([THREE], normed_before_it_is_joined),
    "downsampled by columns": ([GLM, CLAMPED], downsampled_by_columns),
}


CASES = [(family, name) for name, (families, _) in MISTAKES.items() for family in families]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_mistake_is_noticed(monkeypatch, family, name):
    _, put_in = MISTAKES[name]
    put_in(monkeypatch)
    assert error(family) > TOWER


@pytest.mark.parametrize(
    ("family", "before"), [(PADDLE, "post_layernorm"), (GLM, "downsample"), (CLAMPED, "downsample")]
)
def test_eps_of_a_merger_is_noticed(tmp_path, monkeypatch, family, before):
    """Where what comes before its norm is quiet: what a norm returns never is."""
    model, config, _ = transformers_towers.make(family)
    for name, parameter in model.named_parameters():
        if f"{before}." in name:
            parameter.data *= 1e-3
    transformers_towers.save(tmp_path, family, model)
    given = transformers_towers.inputs(config, GRIDS)
    want = tower(family, config, {name: each.numpy() for name, each in model.state_dict().items()}, *given).tokens
    assert relative_error(Encoder.from_pretrained(tmp_path, threads=1)(*given).embeddings, want) <= TOWER
    monkeypatch.setattr(layers.LayerNorm, "__init__", another_eps(layers.LayerNorm.__init__))
    assert relative_error(Encoder.from_pretrained(tmp_path, threads=1)(*given).embeddings, want) > TOWER


def another_eps(build):
    """LayerNorm with the eps of the Qwen towers, whatever it is asked for."""
    return lambda self, weights, d, eps: build(self, weights, d, 1e-6)
