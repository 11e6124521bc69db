"""The two ops that resample bytes: every byte, on every instruction set, and nothing read or written outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenvis import ops

GUARD = 97  # bytes behind an array, more than a vector


def truth(x, starts, weights, precision, axis):
    """The sums in 64 bits."""
    x = np.moveaxis(x, axis, 0).astype(np.int64)
    sums = [np.tensordot(w.astype(np.int64), x[s : s + len(w)], 1) for s, w in zip(starts, weights, strict=True)]
    bytes_ = np.clip((np.array(sums) + (1 << (precision - 1))) >> precision, 0, 255).astype(np.uint8)
    return np.moveaxis(bytes_, 0, axis)


def guarded(array, guard):
    """The array at the end of its memory but for a guard; and the guard."""
    memory = np.full(array.size + GUARD, guard, np.uint8)
    memory[: array.size] = array.ravel()
    return memory[: array.size].reshape(array.shape), memory[array.size :]


def resampled(op, x, starts, weights, precision, shape):
    """What the op makes of x, whatever stands behind x, and that it writes no further."""
    results = []
    for guard in (0, 255):
        source, _ = guarded(x, guard)
        out, behind = guarded(np.full(shape, 7, np.uint8), guard)
        assert op(source, starts, weights, precision, out) is out
        assert (behind == guard).all()
        results.append(out.copy())
    assert (results[0] == results[1]).all()
    return results[0]


def taps(rng, length, n, most, precision):
    """Random starts and weights of both signs whose sums are about 1."""
    starts = rng.integers(0, length - most + 1, n).astype(np.int32)
    weights = rng.integers(-(1 << precision), 1 << precision, (n, most)).astype(np.int32) // most
    weights[:, 0] += (1 << precision) - weights.sum(axis=1)
    return starts, weights


def both(rng, height, width, n, most, precision=14):
    """Each op beside its truth."""
    x = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    for op, axis, length in ((ops.resample_rows, 1, width), (ops.resample_columns, 0, height)):
        starts, weights = taps(rng, length, n, min(most, length), precision)
        shape = list(x.shape)
        shape[axis] = n
        yield resampled(op, x, starts, weights, precision, shape), truth(x, starts, weights, precision, axis)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (13, 11), (31, 64), (64, 43)])
@pytest.mark.parametrize("threads", [1, 3])
def test_bytes(isa, rng, size, threads):
    with ops.use_threads(threads):
        for got, want in both(rng, *size, n=9, most=5):
            np.testing.assert_array_equal(got, want)


@given(height=st.integers(1, 40), width=st.integers(1, 40), n=st.integers(1, 30), most=st.integers(1, 20))
def test_any_size(height, width, n, most):
    for got, want in both(np.random.default_rng(most), height, width, n, most):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("precision", [1, 14, 21])
def test_sums_are_clipped_and_rounded_half_up(isa, precision):
    one = 1 << precision
    x = np.array([[[0, 1, 255]], [[255, 2, 255]]], np.uint8)
    weights = np.array([[one // 2, one // 2], [2 * one, -one], [-one, one]], np.int32)
    got = resampled(ops.resample_columns, x, np.zeros(3, np.int32), weights, precision, (3, 1, 3))
    np.testing.assert_array_equal(got[:, 0], [[128, 2, 255], [0, 0, 255], [255, 1, 0]])


@pytest.mark.parametrize("op", [ops.resample_rows, ops.resample_columns])
@pytest.mark.parametrize(
    ("starts", "weights", "precision", "shape"),
    [
        ([0, 3], np.ones((2, 2)), 1, (4, 4, 3)),  # reads behind the end
        ([-1, 0], np.ones((2, 2)), 1, (4, 4, 3)),
        ([0, 0], np.ones((2, 5)), 1, (4, 4, 3)),
        ([0, 0], np.ones((3, 2)), 1, (4, 4, 3)),
        ([0, 0], np.ones((2, 0)), 1, (4, 4, 3)),
        ([], np.ones((0, 2)), 1, (4, 4, 3)),
        ([0, 0], np.ones((2, 2)), 0, (4, 4, 3)),
        ([0, 0], np.ones((2, 2)), 23, (4, 4, 3)),
        ([0, 0], np.ones((2, 2)), 1, (4, 4, 4)),
    ],
)
def test_what_does_not_fit_is_refused(op, starts, weights, precision, shape):
    starts, weights = np.array(starts, np.int32), weights.astype(np.int32)
    shaped = [2, 4, 3] if op is ops.resample_columns else [4, 2, 3]
    with pytest.raises(ValueError, match=r"axis of 4|start|columns|rows"):
        op(np.zeros(shape, np.uint8), starts, weights, precision, np.zeros(shaped, np.uint8))


def test_an_out_of_another_size_is_refused():
    starts, weights = np.zeros(2, np.int32), np.ones((2, 2), np.int32)
    with pytest.raises(ValueError, match=r"out \(5, 2, 3\)"):
        ops.resample_rows(np.zeros((4, 4, 3), np.uint8), starts, weights, 1, np.zeros((5, 2, 3), np.uint8))
