"""Rows by index."""

import numpy as np
import pytest

from made.arrays import Fenced, assert_same_bits, fenced, normal
from qwenvis import ops


def gathered(x, index):
    """The op on a fenced output."""
    out = Fenced(len(index), x[0].size if len(x) else x.shape[-1])
    assert ops.gather(x, np.array(index, np.int64), out.array) is out.array
    result = out.array.copy()
    out.assert_intact()
    return result


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 500])
@pytest.mark.parametrize("d", [1, 3, 64])
def test_permutation(rng, n, d, threads):
    x, index = fenced(normal(rng, n, d)), rng.permutation(n)
    with ops.use_threads(threads):
        assert_same_bits(gathered(x, index), x[index])


def test_rows_may_repeat_and_be_left_out(rng):
    x = fenced(normal(rng, 9, 5))
    for index in ([8] * 30, [0, 8, 0], [4]):
        assert_same_bits(gathered(x, index), x[index])


def test_rows_of_several_runs(rng):
    """A row of patches without its second frame: three runs that lie apart."""
    x = fenced(normal(rng, 50, 3, 2, 7))
    index = rng.permutation(50)
    for frame in (0, 1):
        assert_same_bits(gathered(x[:, :, frame], index), x[:, :, frame].reshape(50, 21)[index])


def test_every_bit_is_kept():
    x = np.array([[np.inf, -0.0, np.nan, 1e-45]], np.float32)
    x.view(np.uint32)[0, 2] = 0xFFC01234
    assert_same_bits(gathered(x, [0, 0]), x[[0, 0]])


@pytest.mark.parametrize("rows", [0, 3])
def test_no_rows(rows):
    out = np.empty((0, 4), np.float32)
    assert ops.gather(np.empty((rows, 4), np.float32), np.empty(0, np.int64), out) is out


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("x", "index", "out", "message"),
    [
        (zeros(5, 4), [0, 5], zeros(2, 4), "index 5 is outside 5 rows"),
        (zeros(5, 4), [0, -1], zeros(2, 4), "index -1 is outside 5 rows"),
        (zeros(0, 4), [0], zeros(1, 4), "index 0 is outside 0 rows"),
        (zeros(5, 4), [0], zeros(2, 4), r"out is \(2, 4\); 1 rows of \(5, 4\)"),
        (zeros(5, 4), [0, 1], zeros(2, 3), r"out is \(2, 3\)"),
        (zeros(5, 2, 3), [0, 1], zeros(2, 4), r"out is \(2, 4\)"),
        (zeros(5, 8)[:, ::2], [0, 1], zeros(2, 4), "contiguous"),
        (zeros(5, 4), [0, 1], zeros(2, 8)[:, ::2], "contiguous"),
        (zeros(5, 4, dtype=np.float64), [0, 1], zeros(2, 4), "dtype"),
        (zeros(5, 4), [0, 1], zeros(2, 4, dtype=np.int32), "dtype"),
    ],
)
def test_what_does_not_fit_is_refused(x, index, out, message):
    with pytest.raises(ValueError, match=message):
        ops.gather(x, np.array(index, np.int64), out)


def test_index_of_another_type_is_refused():
    with pytest.raises(ValueError, match="dtype"):
        ops.gather(zeros(5, 4), np.array([0, 1], np.int32), zeros(2, 4))
