"""The measures of `qwenvis.comparison` in plain NumPy float64."""

import numpy as np

from oracle.tolerance import UNIT_ROUNDOFF, growth
from qwenvis.comparison import Deviation


def formulas(a, b):
    """The measures of rows a against b, of which none is zero."""
    a, b = np.float64(a), np.float64(b)
    cosines = np.array([x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)])
    rms = np.linalg.norm(a - b) / np.linalg.norm(b)
    return Deviation(len(a), rms, np.abs(a - b).max() / np.abs(b).max(), cosines.mean(), cosines.min())


def rounding(terms):
    """The relative round-off of a quotient of two sums of that many positive terms, on either side of a comparison."""
    return 4 * growth(terms) * UNIT_ROUNDOFF["f64"]


def close(got, want, terms):
    """Whether two deviations agree up to the round-off of sums of that many positive terms.

    A cosine has such sums in its numerator too, whose terms have both signs: its error is relative to 1.
    """
    limit = rounding(terms)
    errors = [abs(getattr(got, name) - getattr(want, name)) for name in got.__dataclass_fields__]
    sizes = [0, want.relative_rms, want.largest_error, 1, 1]
    return all(error <= limit * size for error, size in zip(errors, sizes, strict=True))
