"""The measures of errors, against their formulas in plain NumPy float64."""

import numpy as np
import pytest

from comparison.formulas import close, formulas
from qwenvis.comparison import Deviation, deviation
from qwenvis.comparison.deviation import RowErrors, Tally, row_errors
from qwenvis.errors import NumericalError


def tallied(array, reference, parts=1):
    tally = Tally()
    for pair in zip(*(np.array_split(np.float32(each), parts) for each in (array, reference)), strict=True):
        tally.add(row_errors(*pair))
    return tally.deviation("tokens")


def test_numbers_made_by_hand():
    reference = [[3, 4], [0, 5], [-6, 8]]
    array = [[3, 4], [5, 0], [6, -8]]  # equal, at a right angle, opposite
    # |a - b|^2 = 0 + 50 + 400, |b|^2 = 25 + 25 + 100
    assert tallied(array, reference) == Deviation(3, 3**0.5, 16 / 8, 0.0, -1.0)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (301, 64)])
@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
@pytest.mark.parametrize(("parts", "chunk"), [(1, 1 << 20), (1, 1), (5, 130)])
def test_formulas(size, scale, parts, chunk, monkeypatch):
    monkeypatch.setattr(deviation, "CHUNK", chunk)
    random = np.random.default_rng(0)
    reference = np.float32(scale * random.standard_normal(size) * np.exp(3 * random.standard_normal(size)))
    array = np.float32(reference + scale * 0.1 * random.standard_normal(size))
    assert close(tallied(array, reference, min(parts, len(array))), formulas(array, reference), array.size)


def test_an_error_below_the_round_off_of_float32_sums_shows():
    reference = np.ones((1, 1 << 16), np.float32)
    array = reference.copy()
    array[0, 5] += 2**-23
    found = tallied(array, reference)
    assert found.relative_rms == 2**-23 / 2**8
    assert found.largest_error == 2**-23


def test_cosines_of_rows_of_zeros():
    reference = [[0, 0], [0, 0], [1, 0], [2, 0]]
    array = [[0, 0], [1, 0], [0, 0], [2, 0]]
    assert row_errors(np.float32(array), np.float32(reference)).cosine.tolist() == [1, 0, 0, 1]
    assert tallied(array, reference) == Deviation(4, (2 / 5) ** 0.5, 1 / 2, 0.5, 0.0)


def test_zeros_equal_zeros():
    assert tallied(np.zeros((2, 3)), np.zeros((2, 3))) == Deviation(2, 0.0, 0.0, 1.0, 1.0)


def test_an_error_relative_to_zero_is_refused():
    with pytest.raises(NumericalError, match=r"tokens: the reference is zero in all 2 rows.*up to 0\.5;"):
        tallied([[0, 0.5], [0, 0]], np.zeros((2, 2)))


def test_parts_of_rows():
    rows = row_errors(np.float32([[1, 2], [3, 4], [5, 6]]), np.float32([[1, 2], [3, 5], [5, 8]]))
    part = rows.part(slice(1, 3))
    assert isinstance(part, RowErrors)
    assert part.squared_error.tolist() == [1, 4]
    assert part.largest.tolist() == [5, 8]
