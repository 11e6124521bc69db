"""How far a result may be from the float64 truth, derived from the number format and the sizes of the numbers.

An operation's tolerance is an array, one bound per element. A tower's is one number, relative to the largest element:
the error of a deep network has no useful bound and is measured instead.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

UNIT_ROUNDOFF = {"f64": 2.0**-53, "f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}

# Rounding errors of a long sum are a random walk: K of them stay within λ √K units but for a chance of 2 exp(-λ²/2),
# 3e-14 at λ = 8 (Higham and Mary 2019, "A new approach to probabilistic rounding error analysis").
WALK = 8.0

# What a float32 exp, tanh or erf and the few operations around it may add, in units of round-off. Good polynomials
# are within 2 to 4.
ELEMENTARY = 8.0

SMALLEST_NORMAL = 2.0**-126  # of float32

# The steepest slope of GELU, its tanh form, quick GELU and SiLU: how much of an argument's error comes through.
STEEPEST = 1.13

# A float32 tower against the float64 one, random weights. transformers' own float32 towers of depth 32 are within
# 2.4e-6 of their float64 selves; a tanh GELU in place of the erf one, the quietest of the usual mistakes, is 2e-4.
TOWER = 1e-5
# The same where one of the two has rounded the inputs of its products to bfloat16; see docs/models.md.
ROUNDED = 4e-2
# The same where one of the two, or both, have quantised weights and rows to int8, on towers of tiny sizes.
QUANTIZED = 0.15


def growth(length):
    """Units of round-off that a sum of `length` products may gather: the sure bound or the likely one."""
    return min(length, WALK * np.sqrt(length)) + 2


def dot_tolerance(x, w, b=0.0, *, summed="f32", stored=None):
    """Bound of every element of x Wᵀ + b, for x (M, K), w (N, K), b (N,).

    `summed` is the format of the running sum. `stored` is the format to which one side of the comparison rounds x and
    w and the other does not; None if both sides were given the same numbers.
    """
    units = growth(x.shape[-1]) * UNIT_ROUNDOFF[summed] + (2 * UNIT_ROUNDOFF[stored] if stored else 0)
    return (_size(x) @ _size(w).T + _size(b)) * units


def norm_tolerance(x, w, b=None, eps=1e-6):
    """Bound of every element of a float32 LayerNorm of x (M, d), or of an RMSNorm if b is None."""
    x, units = np.asarray(x, np.float64), growth(x.shape[-1])
    mean = 0 if b is None else x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + eps)
    of_mean = 0 if b is None else units * np.abs(x).mean(axis=-1, keepdims=True)
    of_rstd = (units + 4) * np.abs(x - mean)
    return UNIT_ROUNDOFF["f32"] * ((of_mean + of_rstd) * rstd * _size(w) + (0 if b is None else _size(b)))


def activation_tolerance(x, error=0.0):
    """Bound of every element of a float32 activation of x, when x itself comes with an `error`."""
    return STEEPEST * error + ELEMENTARY * UNIT_ROUNDOFF["f32"] * _size(x)


def activation_relative_tolerance(x, y, exponent):
    """Bound of every element of y = activation(x), relative to y: the tails keep their digits.

    Rounding the `exponent` of the formula's e^exponent, and the few steps that lead to it, changes y by a factor.
    Where e^exponent is no normal number, a result may stand at the smallest one.
    """
    units = ELEMENTARY + 4 * np.minimum(_size(exponent), 128)
    return UNIT_ROUNDOFF["f32"] * units * _size(y) + SMALLEST_NORMAL * np.maximum(_size(x), 1)


def gelu_tolerance(x, y):
    """Bound of every element of y = gelu(x), relative to y.

    x < 0 gives x t p(t) 2^u with u = -log2(e) / 2 x x, whose two products are rounded: each may change the power by
    |u| ln 2 = x² / 2 units. u ends at -126, where a result may stand at |x| t p(t) = 1 / √(2π) < 1/2 of that power.
    """
    units = ELEMENTARY + 2 * np.minimum(np.minimum(x, 0) ** 2 / 2, 126 * np.log(2))
    return UNIT_ROUNDOFF["f32"] * units * _size(y) + SMALLEST_NORMAL / 2


def rope_tolerance(x):
    """Bound of every element of a float32 rope of x (..., head_dim): table, products and sum round once each."""
    a, b = np.split(_size(x), 2, axis=-1)
    return 4 * UNIT_ROUNDOFF["f32"] * np.concatenate([a + b, a + b], axis=-1)


def attention_tolerance(q, k, v, cu_seqlens):
    """Bound of every element of float32 attention (n, heads, head_dim); rope of q and k may be part of it.

    The sizes of scores are taken from the lengths of q and k, which rope leaves alone. Rope may turn each of them by 8
    units of its length (`rope_tolerance`, both lanes of a pair), scaling and the exponent's subtraction add 4. An error
    δ in the scores changes every weight by a factor of at most exp(2δ).
    """
    q, k, v = _size(q), _size(k), _size(v)
    shared, (_, heads, head_dim) = q.shape[1] // k.shape[1], q.shape
    bound = np.zeros_like(q)
    for start, stop in pairwise(cu_seqlens):
        for head in range(heads):
            qs, ks, vs = q[start:stop, head], k[start:stop, head // shared], v[start:stop, head // shared]
            longest = np.linalg.norm(ks, axis=-1).max(initial=0)
            scores = np.linalg.norm(qs, axis=-1, keepdims=True) * longest / np.sqrt(head_dim)
            units = 2 * (growth(head_dim) + 20) * scores + ELEMENTARY + growth(stop - start)
            bound[start:stop, head] = UNIT_ROUNDOFF["f32"] * units * vs.max(axis=0, keepdims=True, initial=0)
    return bound


def relative_error(got, want):
    """max|got - want| / max|want|; NaN if there is a NaN in either."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shape {got.shape}; expected {want.shape}"
    difference, scale = np.abs(got - want).max(initial=0), np.abs(want).max(initial=0)
    return float(difference / scale) if scale else float(difference and np.inf)


def relative_rms(got, want):
    """√mean (got - want)² / √mean want²: of many roundings, which are compared and not bounded."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shape {got.shape}; expected {want.shape}"
    return float(np.sqrt(((got - want) ** 2).mean() / (want**2).mean()))


def assert_close(got, want, tolerance, what="result"):
    """Compare with the truth: a number as tolerance is relative to max|want|, an array bounds each element."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{what} has shape {got.shape}; expected {want.shape}"
    bound = np.broadcast_to(
        tolerance * np.abs(want).max(initial=0) if np.ndim(tolerance) == 0 else tolerance, want.shape
    )
    difference = np.abs(got - want)
    wrong = ~(difference <= bound)  # so that NaN is wrong
    if wrong.any():
        excess = np.where(wrong, np.nan_to_num(difference - bound, nan=np.inf), -np.inf)
        at = np.unravel_index(excess.argmax(), want.shape)
        raise AssertionError(
            f"{what}: {wrong.sum()} of {want.size} elements differ; the worst, at {tuple(map(int, at))}, is "
            f"{got[at]:.9g}; expected {want[at]:.9g} within {bound[at]:.2g}"
        )


def _size(array):
    return np.abs(np.asarray(array, np.float64))
