"""The usual mistakes, put into the package one at a time: the comparison of test_models must notice each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import reference
import truth
from tolerance import TOWER, relative_error

from qwenvis import Encoder, geometry, layers, ops
from qwenvis.models import qwen2_5_vl, qwen2_vl

GRIDS = [[3, 10, 14], [1, 4, 18]]
MODULES = {"qwen2_vl": qwen2_vl, "qwen2_5_vl": qwen2_5_vl}

coords, rope, window_labels = geometry.coords, geometry.rope, geometry.window_labels
attention, embed = ops.attention, layers.PatchEmbed.__call__


@pytest.fixture(scope="module", params=list(truth.FAMILIES))
def judged(request, tmp_path_factory):
    """(family, directory, pixel_values, grid_thw, tokens of the reference), at two scales of the pixel_values."""
    family, directory = request.param, tmp_path_factory.mktemp(request.param)
    model, config, weights = truth.make(family)
    truth.save(directory, family, model)
    given = [truth.inputs(config, GRIDS, scale=scale) for scale in (1.0, 1e-3)]
    return family, directory, [(*each, reference.tower(family, config, weights, *each).tokens) for each in given]


def error(judged):
    """The larger of the relative errors at the two scales; at the small one, eps shows."""
    _, directory, cases = judged
    encoder = Encoder.from_pretrained(directory, threads=1)
    return max(relative_error(encoder(*given).embeddings, want) for *given, want in cases)


def test_there_is_none(judged):
    assert error(judged) <= TOWER


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
    for module in MODULES.values():
        monkeypatch.setattr(module, "EPS", 1e-5)


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


BOTH, SECOND, FIFTH = list(MODULES), ["qwen2_vl"], ["qwen2_5_vl"]
MISTAKES = {
    "merger with the tanh GELU": (BOTH, activation(layers.PatchMerger, "fc1", "gelu_pytorch_tanh")),
    "GELU for quick GELU": (SECOND, activation(layers.Mlp, "fc1", "gelu")),
    "another eps": (BOTH, eps),
    "norm biases forgotten": (SECOND, forgotten(layers.LayerNorm, "bias", 0)),
    "norm weights forgotten": (FIFTH, forgotten(layers.RMSNorm, "weight", 1)),
    "rope with rows and columns swapped": (
        BOTH,
        patched(geometry, "rope", lambda places, *args: rope(places[:, ::-1], *args)),
    ),
    "rope in raster order": (BOTH, patched(geometry, "coords", raster)),
    "rope frequencies over the whole head": (
        BOTH,
        patched(geometry, "rope", lambda places, d, theta: rope(places, d, theta**0.5)),
    ),
    "rope of neighbouring lanes": (BOTH, patched(ops, "attention", interleaved_lanes)),
    "rope left in natural order": (FIFTH, natural_rope),
    "tokens left in window order": (FIFTH, window_order_out),
    "attention across frames": (BOTH, patched(geometry, "frames", item_of_patch)),
    "windows in no block": (FIFTH, patched(geometry, "window_labels", lambda places, frames, window: frames)),
    "windows of another side": (FIFTH, patched(geometry, "window_labels", larger_windows)),
    "q, k and v interleaved by head": (BOTH, patched(ops, "attention", interleaved_heads)),
    "patches as (frame, channel, y, x)": (BOTH, patched(layers.PatchEmbed, "__call__", frames_first)),
    "everything taken for a still": (BOTH, patched(layers.PatchEmbed, "is_still", lambda self, patches: True)),
}


CASES = [(family, name) for name, (families, _) in MISTAKES.items() for family in families]


@pytest.mark.parametrize(("judged", "name"), CASES, indirect=["judged"])
def test_mistake_is_noticed(judged, monkeypatch, name):
    _, put_in = MISTAKES[name]
    put_in(monkeypatch)
    assert error(judged) > TOWER
