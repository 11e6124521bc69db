"""What an image will cost: the work counted by hand, the memory held against what NumPy really allocates."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import reference
from towers import PRESETS, encoder, pixels

from qwenvis import cost

every_family = pytest.mark.parametrize("family", list(PRESETS))

D, DEPTH, OUT, PATCH = 64, 4, 96, 3 * 2 * 14 * 14
GRIDS = [[[1, 4, 6]], [[2, 12, 18], [1, 10, 14]], [[5, 2, 2]]]


def multiply_adds(family, grid_thw, still):
    """Of the tiny presets: linears, Q Kᵀ and P V."""
    n = int(grid_thw.prod(axis=1).sum())
    mlp = {"qwen2_vl": 2 * D * 256, "qwen2_5_vl": 3 * D * 100}[family]
    embed, block = PATCH // (2 if still else 1) * D, D * 3 * D + D * D + mlp
    merger = 4 * D * 4 * D + 4 * D * OUT
    total = n * (embed + DEPTH * block) + n // 4 * merger
    frames = reference.frame_cu_seqlens(grid_thw)
    windows = reference.window_order(grid_thw, 2, 4)[1]
    for i in range(DEPTH):
        segments = windows if family == "qwen2_5_vl" and i not in (1, 3) else frames
        total += sum(2 * (stop - start) ** 2 * D for start, stop in itertools.pairwise(segments))
    return total


@every_family
@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize("grids", GRIDS, ids=str)
def test_work_is_counted(family, still, grids):
    grid_thw = np.array(grids)
    got = encoder(family).outline.cost(grid_thw, still=still)
    assert got.flops == 2 * multiply_adds(family, grid_thw, still)
    assert got.patches == grid_thw.prod(axis=1).sum()
    assert got.tokens == got.patches // 4


@every_family
@pytest.mark.parametrize(
    "grids", [[[1, 20, 30]], [[1, 64, 64]], [[3, 40, 60], [1, 10, 10]], [[1, 2, 400]], [[900, 2, 2]]], ids=str
)
def test_memory_is_foretold(family, grids):
    """Promise 10: the peak is at most the estimate and a tenth."""
    found = encoder(family)
    values, grid_thw = pixels(found.config, grids)
    want = found.outline.cost(grid_thw, still=False).nbytes - values.nbytes
    tracemalloc.start()
    try:
        found(values, grid_thw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.8 * want <= peak <= 1.1 * want


@every_family
def test_memory_is_linear_in_patches(family):
    outline = encoder(family).outline
    each = [outline.cost(np.array([[1, side, side]])).nbytes for side in (64, 128, 256, 512)]
    assert all(larger <= 4.1 * smaller for smaller, larger in itertools.pairwise(each))


def test_rates_are_those_of_a_computer(isa):
    for rate in (cost.gemm_rate(1), cost.peak_rate(1)):
        assert math.isfinite(rate)
        assert rate > 1e7
