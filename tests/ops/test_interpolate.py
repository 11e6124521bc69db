"""A learned grid, interpolated: the weighted sum of its rows."""

import numpy as np
import pytest

from made.arrays import Fenced, assert_same_bits, fenced, normal
from oracle.tolerance import assert_close
from qwenvis import ops


def places(rng, n, taps, size):
    return rng.integers(0, size, (n, taps), np.int32), normal(rng, n, taps)


def interpolated(grid, y, x, start):
    """The op on a fenced array that holds `start`."""
    out = Fenced(*start.shape)
    out.array[:] = start
    assert ops.add_interpolated(grid, y, x, out.array) is out.array
    result = out.array.copy()
    out.assert_intact()
    return result


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (31, 64), (32, 65), (33, 63), (200, 130)])
def test_sum_of_weighted_places(rng, n, d, taps, threads):
    grid, y, x, start = normal(rng, 5, 7, d), places(rng, n, taps, 5), places(rng, n, taps, 7), normal(rng, n, d)
    summed = grid.astype(np.float64)[y[0][:, :, None], x[0][:, None, :]]
    weights = (y[1][:, :, None] * x[1][:, None, :])[..., None]
    with ops.use_threads(threads):
        got = interpolated(grid, y, x, start)
    bound = 2.0**-23 * (taps**2 + 2) * (np.abs(start) + (np.abs(weights) * np.abs(summed)).sum(axis=(1, 2)))
    assert_close(got, start + (weights * summed).sum(axis=(1, 2)), bound)


def test_a_row_depends_on_itself_alone(rng):
    grid, y, x, start = normal(rng, 5, 7, 70), places(rng, 90, 4, 5), places(rng, 90, 4, 7), normal(rng, 90, 70)
    whole = interpolated(grid, y, x, start)
    for row in (0, 31, 32, 89):
        one = [np.ascontiguousarray(part[row : row + 1]) for part in (*y, *x)]
        assert_same_bits(interpolated(grid, one[:2], one[2:], start[row : row + 1]), whole[row : row + 1])


def test_no_rows(rng):
    nothing = np.empty((0, 4), np.int32), np.empty((0, 4), np.float32)
    assert interpolated(normal(rng, 2, 2, 3), nothing, nothing, np.empty((0, 3), np.float32)).shape == (0, 3)


def test_what_does_not_fit_is_refused(rng):
    grid, y, x, out = normal(rng, 5, 7, 6), places(rng, 9, 2, 5), places(rng, 9, 2, 7), fenced(normal(rng, 9, 6))
    with pytest.raises(ValueError, match="index 5 is outside 5 places"):
        ops.add_interpolated(grid, (np.full((9, 2), 5, np.int32), y[1]), x, out)
    with pytest.raises(ValueError, match="index -1 is outside 7 places"):
        ops.add_interpolated(grid, y, (np.full((9, 2), -1, np.int32), x[1]), out)
    with pytest.raises(ValueError, match=r"expected \(9, 2\)"):
        ops.add_interpolated(grid, y, (x[0], x[1][:, :1].copy()), out)
    with pytest.raises(ValueError, match="expected float32 with 6 columns"):
        ops.add_interpolated(grid, y, x, np.empty((9, 5), np.float32))
    with pytest.raises(ValueError, match=r"expected \(8, 2\)"):
        ops.add_interpolated(grid, y, x, np.empty((8, 6), np.float32))
