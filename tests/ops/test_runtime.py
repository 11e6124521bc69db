"""The selected instruction set, the number of threads, and the floating-point mode of whoever calls."""

import threading
from functools import partial

import numpy as np
import pytest

from made import segments
from made.arrays import assert_same_bits, normal
from made.tile_sizes import ISAS, using_isa
from processes import floating_point
from processes.programs import output, run
from qwenvis import QwenvisError, ops
from qwenvis.errors import IsaError


def test_generic_is_everywhere_and_comes_first():
    assert next(iter(ops.isas().items())) == ("generic", True)
    assert ops.isa() in ISAS


def test_selected_isa(isa):
    assert ops.isa() == isa


def test_without_a_name_the_best_one_is_selected():
    with using_isa("generic"):
        ops.use_isa()
        assert ops.isa() == ISAS[-1]


def test_unknown_isa():
    before = ops.isa()
    with pytest.raises(IsaError, match=r"ISA 'mmx' is not in this build, which has generic") as caught:
        ops.use_isa("mmx")
    assert isinstance(caught.value, QwenvisError)
    assert ops.isa() == before


def test_absent_isa():
    absent = [name for name, present in ops.isas().items() if not present]
    if not absent:
        pytest.skip("this CPU has every ISA that is compiled")
    with pytest.raises(IsaError, match=f"this CPU lacks ISA '{absent[0]}'; it has generic"):
        ops.use_isa(absent[0])


@pytest.mark.parametrize("name", ISAS)
def test_environment_forces_an_isa(name):
    assert output("from qwenvis import ops; print(ops.isa())", QWENVIS_ISA=name) == name


def test_environment_without_a_name_is_no_choice():
    assert output("from qwenvis import ops; print(ops.isa())", QWENVIS_ISA="") == ISAS[-1]


@pytest.mark.parametrize("name", ["mmx", "AVX2", "avx512 "])
def test_environment_with_an_unknown_isa_fails_loudly(name):
    done = run("from qwenvis import ops", QWENVIS_ISA=name)
    assert done.returncode == 1
    assert f"ISA '{name}' is not in this build" in done.stderr


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_peak_counts_its_flops(tile, threads):
    with ops.use_threads(threads):
        assert ops.peak(100) == 2 * 100 * tile.mr * tile.nr * threads


@pytest.mark.parametrize("count", [0, -1])
def test_no_threads_are_refused(count):
    with pytest.raises(ValueError, match="thread"), ops.use_threads(count):
        pass


def scratch():
    """The scratch of attention tells how many threads the next op will use."""
    return ops.attention_scratch(1, 1, 8)


def scratch_of(threads):
    with ops.use_threads(threads):
        return scratch()


def leave_by_an_error():
    with ops.use_threads(5):
        assert scratch() == scratch_of(5)
        raise ZeroDivisionError


def test_threads_are_restored_also_after_an_error():
    assert scratch() == scratch_of(1) < scratch_of(3) < scratch_of(5)
    with ops.use_threads(3):
        with pytest.raises(ZeroDivisionError):
            leave_by_an_error()
        assert scratch() == scratch_of(3)
    assert scratch() == scratch_of(1)


def test_threads_belong_to_the_python_thread():
    seen = []
    with ops.use_threads(4):
        thread = threading.Thread(target=lambda: seen.append(scratch()))
        thread.start()
        thread.join()
    assert seen == [scratch_of(1)]


def test_python_threads_at_once_get_the_bits_they_get_alone(rng):
    weight, x = ops.PackedWeight(300, 64), normal(rng, 500, 64)
    weight.pack(normal(rng, 300, 64))
    want, got = ops.linear(x, weight, np.empty((500, 300), np.float32)), np.zeros((4, 500, 300), np.float32)

    def work(i):
        with ops.use_threads(1 + i % 2):
            for _ in range(10):
                got[i] = 0
                ops.linear(x, weight, got[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in got:
        assert_same_bits(result, want)


def calls(rng):
    """Calls of every op that computes, with usual numbers and with subnormal ones; all inputs are made beforehand."""
    weight, gate = ops.PackedWeight(40, 30), ops.PackedWeight(40, 30, gated=True)
    w, x, out = normal(rng, 40, 30), normal(rng, 80, 30), np.empty((80, 40), np.float32)
    weight.pack(w)
    for half in (0, 1):
        gate.pack(w[::-1], half=half)
    (q, k, v), rope, cu_seqlens = segments.segments_of(rng, [30, 4, 46], head_dim=72)
    made = []
    for scale in (np.float32(1), np.float32(1e-39)):
        rows, scales = x * scale, w[0] * scale
        made += [partial(segments.attend, (q, k, v * scale), rope, cu_seqlens)]
        made += [partial(ops.linear, rows, weight, out, activation=name) for name in ops.ACTIVATIONS[:-1]]
        made += [partial(ops.linear, rows, gate, out, activation="silu_gate")]
        made += [partial(ops.layer_norm, x, scales, scales, 1e-6, np.empty_like(x))]
        made += [partial(ops.rms_norm, x, scales, 1e-6, np.empty_like(x))]
    return made


def results_of(made):
    return [call().copy() for call in made]


here = pytest.mark.skipif(not floating_point.AVAILABLE, reason="knows no way to set the mode of this platform")


@here
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bits", [floating_point.FLUSH_TO_ZERO, floating_point.ROUND_UP, floating_point.ROUND_TO_ZERO])
def test_mode_of_the_caller_changes_no_bits(isa, rng, bits, threads):
    made = calls(rng)
    want, usual = results_of(made), floating_point.signs()
    with ops.use_threads(threads), floating_point.mode(bits):
        assert floating_point.signs() != usual, "the mode is not set"
        got = results_of(made)
        assert floating_point.signs() != usual, "an op has changed the mode of its caller"
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert_same_bits(g, w, f"call {i}")
