"""Print the minimax polynomials of the kernels, in the form of the headers, with their errors.

The Remez exchange algorithm fits each polynomial in float64; then the coefficients are rounded to float32.
tests/kernels/test_minimax.py compares the headers with the output of this program.

    python tools/minimax.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

HALF_LOG2_E = float(np.float32(0.5 / math.log(2)))  # the factor of -m^2 in act_gelu
SCALE = float(np.float32(0.3411))  # of m in t; between 0.335 and 0.35, all scales fit about as well
LARGEST = math.sqrt(126 / HALF_LOG2_E)  # m, where 2^(-m^2 log2(e) / 2) reaches its lower limit
POINTS, EXCHANGES = 100_001, 12


class Polynomial(NamedTuple):
    """Coefficients (degree + 1,) float32, lowest first, and their largest relative error."""

    coefficients: np.ndarray
    error: float


def chebyshev_points(low: float, high: float) -> np.ndarray:
    """Return points of [low, high], dense at both ends, (POINTS,)."""
    return (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, np.pi, POINTS))


def minimax(x: np.ndarray, wanted: np.ndarray, weight: np.ndarray, degree: int) -> np.ndarray:
    """Return the polynomial p that minimises max|weight (p(x) - wanted)|: (degree + 1,) float64, lowest first.

    Its error has degree + 2 extrema of equal size and alternating sign. Each round enforces this at degree + 2 points,
    then moves the points to the extrema of the new error (Remez 1934).
    """
    count = degree + 2
    powers = np.vander(x, degree + 1, increasing=True)
    at = np.linspace(0, len(x) - 1, count).astype(int)
    for _ in range(EXCHANGES):
        alternating = (-1.0) ** np.arange(count) / weight[at]
        *coefficients, _ = np.linalg.solve(np.column_stack([powers[at], alternating]), wanted[at])
        error = weight * (powers @ coefficients - wanted)
        lobes = np.split(np.arange(len(x)), np.flatnonzero(np.diff(np.sign(error))) + 1)
        extrema = [lobe[np.abs(error[lobe]).argmax()] for lobe in lobes]
        while len(extrema) > count:
            extrema.pop(0 if abs(error[extrema[0]]) < abs(error[extrema[-1]]) else -1)
        at = np.array(extrema)
    return np.array(coefficients)


def scaled_tail() -> Polynomial:
    """p(t) for e^(m^2 / 2) erfc(m / sqrt 2) / 2 = t p(t), with t = 1 / (1 + SCALE m) and m from 0 to LARGEST."""
    t = chebyshev_points(1 / (1 + SCALE * LARGEST), 1)
    m = (1 / t - 1) / SCALE
    wanted = np.vectorize(math.erfc)(m / math.sqrt(2)) / 2 * np.exp2(HALF_LOG2_E * m * m) / t
    coefficients = minimax(t, wanted, 1 / wanted, 8).astype(np.float32)
    return Polynomial(coefficients, np.abs(np.polyval(coefficients[::-1].astype(float), t) / wanted - 1).max())


def exp2_coarse() -> Polynomial:
    """p(r) for 2^r, with |r| <= 1/2 and p(0) = 1."""
    r = chebyshev_points(-0.5, 0.5)
    r = r[r != 0]
    slope = minimax(r, np.expm1(r * math.log(2)) / r, np.abs(r) / 2**r, 2)
    coefficients = np.array([1, *slope], np.float32)
    return Polynomial(coefficients, np.abs(np.polyval(coefficients[::-1].astype(float), r) / 2**r - 1).max())


def as_c(coefficients: np.ndarray, variable: str) -> str:
    """Format a polynomial by Horner's rule, as in the kernels."""
    highest, *others = coefficients[::-1]
    lines = [f"vf p = splat({_literal(highest)});"]
    lines += [f"p = p * {variable} {'-' if c < 0 else '+'} {_literal(abs(c))};" for c in others]
    return "".join(f"    {line}\n" for line in lines)


def _literal(value: np.float32) -> str:
    text = f"{value:.9g}"
    return f"{text}f" if "." in text else f"{text}.0f"


POLYNOMIALS: dict[str, tuple[Callable[[], Polynomial], str]] = {
    "scaled_tail": (scaled_tail, "t"),
    "exp2_coarse": (exp2_coarse, "r"),
}


def main() -> None:
    """Print every polynomial."""
    for name, (fit, variable) in POLYNOMIALS.items():
        polynomial = fit()
        print(f"{name}: relative error {polynomial.error:.1e}\n{as_c(polynomial.coefficients, variable)}")


if __name__ == "__main__":
    main()
