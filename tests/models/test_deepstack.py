"""Deepstack on its way through the front door: whatever the batch, and item by item as the tokens."""

import numpy as np
import pytest

from made.presets import encoder, pixels, same_bits

DEEP = {"qwen3_vl": 2, "qwen3_vl_moe": 2, "qwen3_omni_moe": 2, "cohere_compass": 2}
GRIDS = [[1, 6, 10], [3, 4, 4], [1, 2, 2], [1, 12, 18]]


@pytest.mark.parametrize(("family", "count"), DEEP.items())
def test_arrays_in_the_shape_of_the_tokens(family, count):
    found = encoder(family)
    out = found(*pixels(found.config, GRIDS))
    assert len(out.deepstack) == len(found.config.deepstack) == count
    for array in out.deepstack:
        assert (array.shape, array.dtype, array.flags.owndata) == (out.embeddings.shape, np.float32, True)
        assert not np.array_equal(array, out.embeddings)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_5", "glm4v"])
def test_other_families_have_none(family):
    found = encoder(family)
    out = found(*pixels(found.config, GRIDS))
    assert out.deepstack == []
    assert [item.deepstack for item in out.items()] == [[]] * len(GRIDS)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_item_alone_and_in_groups(monkeypatch, threads):
    """The same bits, however the items are grouped into forward passes."""
    found = encoder("qwen3_vl", threads=threads)
    values, grid_thw = pixels(found.config, GRIDS)
    whole = found(values, grid_thw)
    bounds = np.cumsum([0, *grid_thw.prod(axis=1)])
    for i, item in enumerate(whole.items()):
        alone = found(values[bounds[i] : bounds[i + 1]], grid_thw[i : i + 1])
        assert same_bits(alone.embeddings, item.embeddings)
        assert all(map(same_bits, alone.deepstack, item.deepstack))
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", 80)
    apart = found(values, grid_thw)
    assert all(map(same_bits, apart.deepstack, whole.deepstack))


def test_nothing_given_is_nothing_back():
    found = encoder("qwen3_vl")
    out = found(*pixels(found.config, []))
    assert [array.shape for array in (out.embeddings, *out.deepstack)] == [(0, 96)] * 3
    assert out.items() == []
