"""The measures of how far rows of numbers are from a reference, computed in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import NumericalError

CHUNK = 1 << 20  # entries that are converted to float64 at a time

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Deviation:
    """How far the rows of an array are from those of a reference. All numbers are relative, without a unit.

    With rows a_i and reference rows b_i, computed in float64:

    - ``rows``: the number of rows: of tokens, or of patches in hidden states.
    - ``relative_rms``: ||a - b||_F / ||b||_F = sqrt(sum_i |a_i - b_i|^2 / sum_i |b_i|^2).
    - ``largest_error``: max |a - b| / max |b|, each over all entries.
    - ``mean_cosine``, ``smallest_cosine``: over the rows, of a_i · b_i / (|a_i| |b_i|). Where a_i and b_i are both
      zero the cosine is 1; where one of them is, it is 0.

    Of two arrays of zeros, ``relative_rms`` and ``largest_error`` are 0.
    """

    rows: int
    relative_rms: float
    largest_error: float
    mean_cosine: float
    smallest_cosine: float


class RowErrors(NamedTuple):
    """The errors of each row, each (n,): |a - b|^2, |b|^2, the largest |a - b| and |b|, and the cosine."""

    squared_error: Reals
    squared_norm: Reals
    largest_error: Reals
    largest: Reals
    cosine: Reals

    def part(self, rows: slice) -> RowErrors:
        """Return the errors of some rows."""
        return RowErrors(*(each[rows] for each in self))


def row_errors(array: NDArray[np.float32], reference: NDArray[np.float32]) -> RowErrors:
    """Compare the rows of an array (n, width) with those of a reference of the same shape."""
    step = max(1, CHUNK // array.shape[1])
    starts = range(0, len(array), step)
    parts = [_row_errors(*(each[i : i + step].astype(np.float64) for each in (array, reference))) for i in starts]
    return RowErrors(*map(np.concatenate, zip(*parts, strict=True)))


def _row_errors(a: Reals, b: Reals) -> RowErrors:
    error, norm = a - b, np.linalg.norm(b, axis=1)
    lengths = np.linalg.norm(a, axis=1) * norm
    zero = np.where(a.any(axis=1) | b.any(axis=1), 0.0, 1.0)  # the cosine of a row of zeros
    cosine = np.divide((a * b).sum(axis=1), lengths, out=zero, where=lengths > 0).clip(-1, 1)
    return RowErrors((error**2).sum(axis=1), norm**2, np.abs(error).max(axis=1), np.abs(b).max(axis=1), cosine)


class Tally:
    """The sums and maxima of `RowErrors` that arrive part by part.

    ``rows`` is the number of rows so far, and ``squared_norm`` the sum of |b|^2.
    """

    def __init__(self) -> None:
        self.rows, self.squared_norm = 0, 0.0
        self._squared_error = self._largest_error = self._largest = self._cosines = 0.0
        self._smallest_cosine = 1.0

    def add(self, rows: RowErrors) -> None:
        """Add the errors of more rows, at least one."""
        self.rows += len(rows.squared_error)
        self.squared_norm += float(rows.squared_norm.sum())
        self._squared_error += float(rows.squared_error.sum())
        self._largest_error = max(self._largest_error, float(rows.largest_error.max()))
        self._largest = max(self._largest, float(rows.largest.max()))
        self._cosines += float(rows.cosine.sum())
        self._smallest_cosine = min(self._smallest_cosine, float(rows.cosine.min()))

    def deviation(self, name: str) -> Deviation:
        """Return the measures of all rows so far, at least one; ``name`` is that of the array in messages.

        Raises NumericalError if the reference is zero and the array is not: no error is relative to zero.
        """
        if self._squared_error and not self.squared_norm:
            raise NumericalError(
                f"{name}: the reference is zero in all {self.rows} rows, and the compared values are up to "
                f"{self._largest_error:.2g}; an error relative to zero is not defined"
            )
        return Deviation(
            rows=self.rows,
            relative_rms=(self._squared_error / (self.squared_norm or 1)) ** 0.5,
            largest_error=self._largest_error / (self._largest or 1),
            mean_cosine=self._cosines / self.rows,
            smallest_cosine=self._smallest_cosine,
        )
