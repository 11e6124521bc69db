"""LayerNorm and RMSNorm of rows of any length, in place, side by side, over any number of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made.arrays import Fenced, assert_same_bits, fenced, normal
from made.tile_sizes import ISAS, using_isa
from oracle import reference
from oracle.tolerance import assert_close, norm_tolerance
from qwenvis import ops

EPS = 1e-6
WIDTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 1152, 1280, 3420]


def layer_norm(x, w, b, out, eps=EPS):
    return ops.layer_norm(x, w, b, eps, out)


def rms_norm(x, w, _, out, eps=EPS):
    return ops.rms_norm(x, w, eps, out)


def truth(norm, x, w, b, eps=EPS):
    """The norm in float64, and the bound of the float32 one."""
    if norm is layer_norm:
        return reference.layer_norm(x, w, b, eps), norm_tolerance(x, w, b, eps)
    return reference.rms_norm(x, w, eps), norm_tolerance(x, w, eps=eps)


def weights(rng, d):
    return (fenced(normal(rng, 1, d))[0] for _ in range(2))


def normed(norm, x, w, b, group=1):
    """The op on a fenced output."""
    out = Fenced(len(x) // group, group * x.shape[1])
    assert norm(x, w, b, out.array) is out.array
    result = out.array.copy()
    out.assert_intact()
    return result


both = pytest.mark.parametrize("norm", [layer_norm, rms_norm], ids=["LayerNorm", "RMSNorm"])


@both
@pytest.mark.parametrize("d", WIDTHS)
def test_every_width(isa, rng, norm, d):
    w, b = weights(rng, d)
    for x in (normal(rng, 5, d), normal(rng, 5, d) * np.float32(3e3) + np.float32(900), normal(rng, 2, d) * 0):
        assert_close(normed(norm, fenced(x), w, b), *truth(norm, x, w, b))


@both
@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_every_number_of_rows(isa, rng, norm, n):
    x, (w, b) = fenced(normal(rng, n, 24)), weights(rng, 24)
    want = normed(norm, x, w, b)
    assert_close(want, *truth(norm, x, w, b))
    alone = np.concatenate([normed(norm, x[i : i + 1], w, b) for i in range(n)])
    assert_same_bits(alone, want, "each row alone")
    for threads in (2, 5):
        with ops.use_threads(threads):
            assert_same_bits(normed(norm, x, w, b), want, f"{threads} threads")


@given(
    isa=st.sampled_from(ISAS), norm=st.sampled_from([layer_norm, rms_norm]), n=st.integers(1, 70), d=st.integers(1, 300)
)
def test_any_shape(isa, norm, n, d):
    rng = np.random.default_rng((n, d))
    x, (w, b) = normal(rng, n, d), weights(rng, d)
    with using_isa(isa):
        assert_close(normed(norm, fenced(x), w, b), *truth(norm, x, w, b))


@both
def test_in_place(isa, rng, norm):
    x, (w, b) = Fenced(40, 83), weights(rng, 83)
    x.array[...] = normal(rng, 40, 83)
    want = normed(norm, x.array, w, b)
    norm(x.array, w, b, x.array)
    assert_same_bits(x.array, want)
    x.assert_intact()


@both
@pytest.mark.parametrize("group", [2, 4, 5])
def test_rows_side_by_side(isa, rng, norm, group):
    x, (w, b) = fenced(normal(rng, 20 * group, 19)), weights(rng, 19)
    want = normed(norm, x, w, b)
    for threads in (1, 2):
        with ops.use_threads(threads):
            assert_same_bits(normed(norm, x, w, b, group), want.reshape(20, group * 19))


@both
@pytest.mark.parametrize(("heads", "d"), [(1, 7), (3, 12), (16, 64), (5, 33)])
def test_heads_side_by_side(isa, rng, norm, heads, d):
    """A weight for a part of the row: each part is a row of its own, also where it lies, in front of other columns."""
    x, (w, b) = normal(rng, 40, heads * d), weights(rng, d)
    want = normed(norm, x.reshape(-1, d), w, b).reshape(x.shape)
    assert_same_bits(normed(norm, fenced(x), w, b), want)
    assert_same_bits(normed(norm, x, w, b, 4), want.reshape(10, -1))
    wide = np.concatenate([x, x], axis=1)
    norm(wide[:, : heads * d], w, b, wide[:, : heads * d])
    assert_same_bits(wide, np.concatenate([want, x], axis=1))


@both
def test_rows_at_any_distance(isa, rng, norm):
    x, (w, b) = normal(rng, 40, 11), weights(rng, 11)
    want = normed(norm, x, w, b)
    assert_same_bits(normed(norm, x[::3], w, b), want[::3])
    assert_same_bits(normed(norm, x[::-1], w, b), want[::-1])


@both
@pytest.mark.parametrize("eps", [1e-5, 1e-2, 1.0])
def test_eps(isa, rng, norm, eps):
    x, (w, b), out = normal(rng, 9, 40), weights(rng, 40), np.empty((9, 40), np.float32)
    assert_close(norm(x, w, b, out, eps), *truth(norm, x, w, b, eps))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(out, *truth(norm, x, w, b))


def test_layer_norm_far_from_zero(isa, rng):
    """The variance comes from differences to the mean; from squares it would have lost all digits here."""
    x, (w, b) = normal(rng, 9, 1280) + np.float32(3e4), weights(rng, 1280)
    assert_close(normed(layer_norm, x, w, b), *truth(layer_norm, x, w, b))


@both
def test_not_a_number_stays_in_its_row(isa, rng, norm):
    x, (w, b) = normal(rng, 40, 37), weights(rng, 37)
    want = normed(norm, x, w, b)
    x[7, 36] = np.nan
    got = normed(norm, x, w, b)
    assert np.isnan(got[7]).all()
    assert_same_bits(np.delete(got, 7, axis=0), np.delete(want, 7, axis=0))


@both
def test_mistakes_are_seen(isa, rng, norm):
    x, (w, b) = normal(rng, 9, 80), weights(rng, 80)
    want = truth(norm, x, w, b)
    other = w.copy()
    other[-1] *= 1.00001
    for wrong in ((x[:, ::-1].copy(), w, b), (x, other, b), (x * np.float32(0.1), w, b)):
        with pytest.raises(AssertionError, match="elements differ"):
            assert_close(normed(norm, *wrong), *want)


@both
def test_no_rows(isa, norm):
    out = np.empty((0, 8), np.float32)
    assert norm(np.empty((0, 8), np.float32), np.ones(8, np.float32), np.ones(8, np.float32), out) is out


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@both
@pytest.mark.parametrize(
    ("x", "w", "out", "message"),
    [
        (ones(4, 6), ones(5), ones(4, 6), "weight and bias have 5 and .* entries; x has 6 columns"),
        (ones(4, 6), ones(12), ones(4, 6), "weight and bias have 12 and .* entries; x has 6 columns"),
        (ones(4, 6), ones(0), ones(4, 6), "weight and bias have 0 and .* entries; x has 6 columns"),
        (ones(4, 6), ones(6), ones(3, 6), r"out is \(3, 6\); x is \(4, 6\)"),
        (ones(4, 6), ones(6), ones(4, 12), r"out is \(4, 12\); x is \(4, 6\)"),
        (ones(4, 6), ones(6), ones(3, 8), r"out is \(3, 8\); x is \(4, 6\)"),
        (ones(4, 6), ones(6), ones(8, 3), r"out is \(8, 3\); x is \(4, 6\)"),
        (ones(4, 12)[:, ::2], ones(6), ones(4, 6), "contiguous"),
        (ones(4, 6), ones(6), ones(4, 12)[:, ::2], "contiguous"),
        (ones(4, 6, dtype=np.float64), ones(6), ones(4, 6), "dtype"),
        (ones(4, 6), ones(6, dtype=np.float16), ones(4, 6), "dtype"),
        (ones(24), ones(6), ones(4, 6), "dimensions"),
    ],
)
def test_what_does_not_fit_is_refused(norm, x, w, out, message):
    with pytest.raises(ValueError, match=message):
        norm(x, w, w, out)


def test_bias_of_another_length_is_refused():
    with pytest.raises(ValueError, match="have 6 and 7 entries; x has 6 columns"):
        ops.layer_norm(ones(4, 6), ones(6), ones(7), EPS, ones(4, 6))
