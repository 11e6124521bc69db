"""What an image will cost: the work counted by hand, the memory held against what NumPy really allocates."""

import itertools
import math
import tracemalloc

import numpy as np
import numpy.ma
import pytest

from made.presets import checkpoint, encoder, pixels
from oracle import reference, transformers_towers
from oracle.families import KINDS
from qwenvis import Encoder, cost, ops
from qwenvis.nn.formats import DTYPES

every_family = pytest.mark.parametrize("family", KINDS)

D, DEPTH, OUT = 64, 4, 96
PATCH = dict.fromkeys(KINDS, 3 * 2 * 14 * 14) | {"qwen3_vl": 3 * 2 * 16 * 16, "paddleocr_vl": 3 * 14 * 14}
MLP = {
    "qwen2_vl": 2 * D * 256,
    "qwen2_5_vl": 3 * D * 100,
    "qwen3_vl": 2 * D * 100,
    "glm4v": 3 * D * OUT,
    "glm5_next": 3 * D * 100,
    "paddleocr_vl": 2 * D * 100,
}
JOINED, DOWNSAMPLED = 4 * D * 4 * D + 4 * D * OUT, 4 * D * OUT + OUT * OUT
MERGERS = dict.fromkeys(KINDS, JOINED) | {
    "qwen3_vl": 3 * JOINED,  # one at the end, two of deepstack
    "glm4v": DOWNSAMPLED + 3 * OUT * 100,
    "glm5_next": DOWNSAMPLED + 3 * OUT * 120,
}
GRIDS = [[[1, 4, 6]], [[2, 12, 18], [1, 10, 14]], [[5, 2, 2]]]


def multiply_adds(family, grid_thw, still):
    """Of the tiny presets: linears, Q Kᵀ and P V."""
    n = int(grid_thw.prod(axis=1).sum())
    folded = 2 if still and family != "paddleocr_vl" else 1
    embed, block = PATCH[family] // folded * D, D * 3 * D + D * D + MLP[family]
    total = n * (embed + DEPTH * block) + n // 4 * MERGERS[family]
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
    got = encoder(family).spec.cost(grid_thw, still=still)
    assert got.flops == 2 * multiply_adds(family, grid_thw, still)
    assert got.patches == grid_thw.prod(axis=1).sum()
    assert got.tokens == got.patches // 4


@every_family
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "grids", [[[1, 20, 30]], [[1, 64, 64]], [[3, 40, 60], [1, 10, 10]], [[1, 2, 400]], [[900, 2, 2]]], ids=str
)
def test_memory_is_foretold(family, threads, grids):
    """Promise 10: the peak is at most the estimate and a tenth."""
    found = encoder(family, threads=threads)
    values, grid_thw = pixels(found.config, grids)
    want = found.spec.cost(grid_thw, still=False, threads=threads).nbytes - values.nbytes
    assert 0.8 * want <= peak_of(lambda: found(values, grid_thw)) <= 1.1 * want


@every_family
def test_memory_of_rows_that_are_quantised_is_foretold(family):
    found = Encoder.from_pretrained(checkpoint(family), dtype="int8", threads=1)
    values, grid_thw = pixels(found.config, [[1, 64, 64]])
    want = found.spec.cost(grid_thw, still=False).nbytes - values.nbytes
    assert 0.8 * want <= peak_of(lambda: found(values, grid_thw)) <= 1.1 * want


def peak_of(call):
    """The most bytes that a call has allocated at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@every_family
def test_memory_is_linear_in_patches(family):
    spec = encoder(family).spec
    each = [spec.cost(np.array([[1, side, side]])).nbytes for side in (64, 128, 256, 512)]
    assert all(larger <= 4.1 * smaller for smaller, larger in itertools.pairwise(each))


@every_family
def test_each_thread_has_scratch_of_its_own(family):
    spec, grid_thw = encoder(family).spec, np.array([[1, 64, 64]])
    one, two, three = (spec.cost(grid_thw, threads=threads).nbytes for threads in (1, 2, 3))
    assert three - two == two - one > 0


@every_family
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_of_the_weights(tmp_path, family, dtype):
    """Of towers whose panels need little rounding up."""
    transformers_towers.save(tmp_path, family, transformers_towers.make(family, hidden_size=256, num_heads=4)[0])
    found = Encoder.from_pretrained(tmp_path, dtype=dtype, threads=1)
    held = sum(part.nbytes for part in {id(part): part for part in parts(found.spec.tower)}.values())
    assert found.spec.nbytes <= held <= 1.1 * found.spec.nbytes


def parts(thing):
    """The packed weights and the arrays in a tower."""
    if isinstance(thing, ops.PackedWeight | np.ndarray):
        yield thing
    elif isinstance(thing, list):
        for each in thing:
            yield from parts(each)
    elif type(thing).__module__.startswith(
        ("qwenvis.models", "qwenvis.nn.layers", "qwenvis.nn.blocks", "qwenvis.nn.mergers")
    ):
        yield from parts(list(vars(thing).values()))


@every_family
def test_all_that_a_tower_has_is_kept(family):
    spec = encoder(family).spec
    assert {id(part) for part in parts(spec.tower)} == {id(memory) for memory in spec.weights.kept}


def test_one_run_that_was_held_up_is_no_peak(monkeypatch):
    clock = iter([0, 1, 1, 2, 2, 9, 9, 10, 10, 11])
    monkeypatch.setattr(cost.ops, "peak", lambda steps, format: 100.0 * steps)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    assert cost.peak_rate(2) == 2 * cost.PEAK_FLOPS


def test_cpu_share_is_the_time_that_the_cpus_were_there(monkeypatch):
    """Half of the time on each of two CPUs."""
    clock = [0.0]

    def takes(seconds):
        clock[0] += seconds

    monkeypatch.setattr(cost.ops, "linear", lambda x, weight, out: takes(0.02))
    for name, rate in (("perf_counter", 1), ("monotonic", 1), ("process_time", 2 * 0.5)):
        monkeypatch.setattr(cost.time, name, lambda rate=rate: rate * clock[0])
    assert cost.cpu_share(2) == pytest.approx(0.5)
    assert cost.BEST_SECONDS <= clock[0] < cost.BEST_SECONDS + 0.1


def test_best_rates_are_of_moments_without_a_neighbour(monkeypatch):
    """Which comes and goes: half of the products and of the peaks take three times as long."""
    clock, nth = [0.0], itertools.count()

    def takes(seconds, result=None):
        clock[0] += seconds * (3 if next(nth) % 4 < 2 else 1)
        return result

    monkeypatch.setattr(cost.ops, "peak", lambda steps, format: takes(0.01, 1e9) if steps > 1 else 1.0)
    monkeypatch.setattr(cost.ops, "linear", lambda x, weight, out: takes(0.02))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cost.time, "monotonic", lambda: clock[0])
    assert cost.best_rates(1) == pytest.approx((2.0 * np.prod(cost.PROBE) / 0.02, 1e9 / 0.01))
    assert cost.BEST_SECONDS <= clock[0] < cost.BEST_SECONDS + 0.1


def test_rates_are_those_of_a_computer(isa):
    for rate in (cost.gemm_rate(1), cost.peak_rate(1), *cost.best_rates(1)):
        assert math.isfinite(rate)
        assert rate > 1e7
