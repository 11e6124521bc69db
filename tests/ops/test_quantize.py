"""Products of int8: against the scheme in NumPy, on rows that are quantised before or inside the product."""

import functools

import ml_dtypes
import numpy as np
import pytest

from made.arrays import assert_same_bits, normal
from made.tile_sizes import ISAS, constant, using_isa
from oracle import reference
from qwenvis import ops

QUANTIZED_ROWS = constant("ops/linear.pyx", "QUANTIZED_ROWS")
QUANTIZING = []
for isa_ in ISAS:
    with using_isa(isa_):
        QUANTIZING += [isa_] * ops.formats()["i8"].quantized
every_isa = pytest.mark.parametrize("name", QUANTIZING)
SIGNS = [1 - 2 * (word >> i & 1) for word in (0x78887888, 0x87777888) * 2 for i in range(32)]  # of a block
SHAPES = [(1, 1, 1), (3, 5, 7), (13, 31, 33), (15, 128, 16), (14, 129, 32), (29, 300, 65)]  # (m, k, n)


@pytest.fixture(autouse=True)
def selected(request):
    if "name" not in request.fixturenames:
        yield
        return
    with using_isa(request.getfixturevalue("name")):
        yield


def packed(w, b=None, **options):
    weight = ops.PackedWeight(*w.shape, "i8", **options)
    weight.pack(w)
    weight.pack_bias(np.zeros(len(w)) if b is None else b)
    return weight


def rows_for(weight, x):
    """The rows of x in the dtype that products with the weight take, rounded to bfloat16 where that is the dtype."""
    return x if weight.rows_dtype == "float32" else x.astype(ml_dtypes.bfloat16).view(np.uint16)


def quantized(weight, rows, room=0):
    room += -(weight.quantized_nbytes + room) % 4
    out = np.full((len(rows), weight.quantized_nbytes + room), 255, np.uint8)[:, : weight.quantized_nbytes]
    return ops.quantize(rows, weight, out)


def product(weight, x, dtype=np.float32, **how):
    return ops.linear(x, weight, np.zeros((len(x), weight.shape[0]), dtype), **how)


def rounded(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def unbalanced(rng, m, k, n):
    """Rows and a weight whose places in K differ in size by thousands, and more than cancel."""
    gains = np.exp(3 * rng.standard_normal(k)).astype(np.float32)
    return rounded(normal(rng, m, k) * gains), normal(rng, n, k) / gains


def hadamard(size):
    """Sylvester's matrix."""
    return functools.reduce(np.kron, [np.array([[1, 1], [1, -1]])] * (size.bit_length() - 1))


def rotated(x, factors):
    """Multiply by factors, then rotate blocks of 128, and the rest in blocks of 32, by orthogonal matrices."""
    k = x.shape[1]
    padded = np.pad(x * factors, ((0, 0), (0, -k % 32)))
    whole, rest = np.split(padded, [k // 128 * 128], axis=1)
    parts = [(part.reshape(-1, b) @ hadamard(b) / b**0.5).reshape(part.shape) for part, b in ((whole, 128), (rest, 32))]
    return np.hstack(parts)


def scheme(x, w):
    """The product as docs/int8.md defines it, in float64."""
    norms = np.linalg.norm(w.astype(np.float64), axis=0)
    signs = np.resize(SIGNS, w.shape[1])
    rows, columns = rotated(x.astype(np.float64), signs * norms), rotated(w.astype(np.float64), signs / norms)
    scale = np.abs(columns).max(axis=1, keepdims=True) / 127
    columns = np.rint(columns / scale) * scale
    low, high = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
    step = ((high - low) / 255)[:, None]
    zero = np.rint(-low / step[:, 0])[:, None]
    return (np.clip(np.rint(rows / step + zero), 0, 255) - zero) * step @ columns.T


@every_isa
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_scheme(name, rng, shape):
    """A tie that float32 breaks in another way moves an entry by one step, of which a sum has thousands."""
    x, w = unbalanced(rng, *shape)
    weight = packed(w)
    got, want = product(weight, rows_for(weight, x)), scheme(x, w)
    size = np.linalg.norm(want)
    assert np.linalg.norm(got - want) < 2e-3 * size
    assert np.linalg.norm(got - x.astype(np.float64) @ w.T.astype(np.float64)) < 0.015 * size


@every_isa
def test_an_outlier_costs_little(name, rng):
    """In a row or in a weight: without the rotation the errors were 0.2 and 0.04."""
    for outlier in ("row", "weight"):
        x, w = normal(rng, 40, 1280), normal(rng, 50, 1280)
        (x if outlier == "row" else w)[:, 77] *= 50
        if outlier == "weight":
            x[:, 77] = 0
        x, weight = rounded(x), packed(w)
        want = x.astype(np.float64) @ w.T.astype(np.float64)
        assert np.linalg.norm(product(weight, rows_for(weight, x)) - want) < 0.03 * np.linalg.norm(want), outlier


@every_isa
@pytest.mark.parametrize("activation", [name for name in ops.ACTIVATIONS if name != "silu_gate"])
def test_rows_may_be_quantised_before(name, rng, activation):
    x, weight = normal(rng, 31, 200), packed(normal(rng, 45, 200), normal(rng, 45))
    rows = rows_for(weight, x)
    for dtype in (np.float32, np.uint16):
        want = product(weight, rows, dtype, activation=activation)
        for room in (0, 56):
            assert np.array_equal(product(weight, quantized(weight, rows, room), dtype, activation=activation), want)


@every_isa
def test_a_product_is_added(name, rng):
    x, weight, before = normal(rng, 31, 200), packed(normal(rng, 45, 200)), normal(rng, 31, 45)
    rows, out = rows_for(weight, x), before.copy()
    ops.linear(rows, weight, out, add=True)
    assert_same_bits(out, before + product(weight, rows))


@every_isa
def test_bits_depend_on_nothing_but_the_row(name, rng):
    """On neither chunks, threads nor other rows."""
    m = QUANTIZED_ROWS + 77
    x, weight = normal(rng, m, 37), packed(normal(rng, 70, 37), normal(rng, 70))
    x[5] = np.nan
    rows = rows_for(weight, x)
    with ops.use_threads(1):
        want = product(weight, rows)
    with ops.use_threads(3):
        got, before = product(weight, rows), quantized(weight, rows)
    assert np.isnan(want[5]).all()
    assert np.isfinite(np.delete(want, 5, axis=0)).all()
    assert_same_bits(got, want)
    assert_same_bits(product(weight, before), want)
    for span in (slice(0, 1), slice(m - 1, m), slice(QUANTIZED_ROWS - 20, m - 3)):
        assert_same_bits(product(weight, rows[span]), want[span])
    assert_same_bits(product(weight, rows[::-1]), want[::-1])


@every_isa
def test_threads_rotate_rows_in_memory_of_their_own(name, rng):
    """Long rows, so that threads rotate at the same time."""
    x, weight = normal(rng, 1000, 5000), packed(normal(rng, 1, 5000))
    rows = rows_for(weight, x)
    with ops.use_threads(1):
        want = quantized(weight, rows)
    with ops.use_threads(4):
        assert all(np.array_equal(quantized(weight, rows), want) for _ in range(5))


@every_isa
def test_rows_at_the_ends_of_the_range(name, rng):
    """Zeros give the bias; the largest and the least numbers stay in proportion; what is no number is seen."""
    w, b = normal(rng, 40, 260), normal(rng, 40)
    weight, exact = packed(w), packed(w, b)
    x = normal(rng, 1, 260)
    large, small = (product(weight, rows_for(weight, x * np.float32(2.0**power))) for power in (120, -100))
    want = product(weight, rows_for(weight, x))
    assert_same_bits(large, want * np.float32(2.0**120))
    assert np.abs(small - want * np.float32(2.0**-100)).max() < 1e-5 * 2.0**-100 * np.abs(want).max()
    assert_same_bits(product(exact, rows_for(exact, np.zeros((3, 260), np.float32))), np.tile(b, (3, 1)))
    constant_row = np.full((1, 260), 3, np.float32)
    assert (
        np.abs(product(weight, rows_for(weight, constant_row)) - 3 * w.sum(axis=1)).max()
        < 0.01 * 3 * np.abs(w).sum(axis=1).max()
    )
    for bad in (np.nan, np.inf, -np.inf):
        for place in (0, 130, 259):
            row = x.copy()
            row[0, place] = bad
            assert np.isnan(product(weight, rows_for(weight, row))).all()


@every_isa
def test_entries_of_half_a_step_stay_bytes(name):
    """The ends of these rows are 255.5 steps, and 0.500002 steps below 0: rounded, no byte holds them."""
    weight = packed(np.eye(2, dtype=np.float32))
    for row in ([26, -127.5], [378, -765]):
        x = np.array([row], np.float32)
        assert np.abs(product(weight, rows_for(weight, x)) - x).max() < 0.01 * np.abs(x).max()


@every_isa
def test_a_range_beyond_the_largest_number(name, rng):
    """A block is rotated into a single entry, the largest number, and the next block into its negative."""
    x = rounded(np.array([SIGNS + [-sign for sign in SIGNS]], np.float32) * 2.0**127)
    w = rng.choice(np.array([-1, 1], np.float32), (40, 256)) * np.float32(2.0**-20)
    want, weight = x.astype(np.float64) @ w.T, packed(w)
    assert np.linalg.norm(product(weight, rows_for(weight, x)) - want) < 0.01 * np.linalg.norm(want)


@every_isa
def test_weights_at_the_ends_of_the_range(name, rng):
    """Columns of zeros, and weights whose squares overflow or vanish in float32."""
    x, w = rounded(normal(rng, 9, 140)), normal(rng, 20, 140)
    for size in (1e30, 1e-30, 1e-38):
        weight = packed(w * np.float32(size))
        got = product(weight, rows_for(weight, x)).astype(np.float64) / size
        want = x.astype(np.float64) @ w.T.astype(np.float64)
        assert np.linalg.norm(got - want) < 0.02 * np.linalg.norm(want), size
    w[:, 70:] = 0
    w[3] = 0
    weight = packed(w)
    got = product(weight, rows_for(weight, x))
    assert (got[:, 3] == 0).all()
    assert np.linalg.norm(got - x @ w.T) < 0.02 * np.linalg.norm(x @ w.T)


@every_isa
def test_halves_come_in_any_order(name, rng):
    gate, up = normal(rng, 35, 66).astype(ml_dtypes.bfloat16), 100 * normal(rng, 35, 66)
    weights = [ops.PackedWeight(35, 66, "i8", gated=True) for _ in range(2)]
    for weight, order in zip(weights, ((0, 1), (1, 0)), strict=True):
        for half in order:
            weight.pack_bias(np.zeros(35), half)
            source = (gate, up)[half].copy()
            weight.pack(source, half)
            source[:] = 0  # a weight keeps no array of its caller
    assert np.array_equal(weights[0].memory, weights[1].memory)
    x = rounded(normal(rng, 17, 66))
    got = product(weights[0], rows_for(weights[0], x), activation="silu_gate")
    want = reference.silu_gate(*(x.astype(np.float64) @ half.astype(np.float64).T for half in (gate, up)))
    assert np.linalg.norm(got - want) < 0.03 * np.linalg.norm(want)


@every_isa
def test_a_mapped_weight_has_the_same_bits(name, rng):
    x, weight = normal(rng, 9, 140), packed(normal(rng, 50, 140), normal(rng, 50))
    other = ops.PackedWeight(50, 140, "i8")
    other.map(weight.memory)
    rows = rows_for(weight, x)
    assert_same_bits(product(other, rows), product(weight, rows))
    columns, factors = 64 * (160 + 8 + 4), 4 * 160  # at most 64 columns: entries, header, bias
    assert weight.nbytes < columns + factors + 3 * 64


@every_isa
def test_what_does_not_fit_is_refused(name, rng):
    weight = packed(normal(rng, 8, 6))
    good, nbytes = rows_for(weight, normal(rng, 4, 6)), weight.quantized_nbytes
    bytes_ = np.zeros((4, nbytes), np.uint8)
    with pytest.raises(ValueError, match="overflow in i8; expected at most 65536"):
        ops.PackedWeight(8, 65537, "i8")
    half = ops.PackedWeight(8, 6, "i8", gated=True)
    with pytest.raises(FloatingPointError, match="the weight is not finite"):
        half.pack(np.full((8, 6), np.nan, np.float32))
    with pytest.raises(ValueError, match="out is read-only"):
        ops.quantize(good, weight, np.broadcast_to(bytes_[:1], bytes_.shape))
    for out in (bytes_[:3], bytes_[:, 1:]):
        with pytest.raises(ValueError, match=rf"expected \(m, 6\), \(m, {nbytes}\)"):
            ops.quantize(good, weight, out)
    with pytest.raises(ValueError, match="expected 2 and uint8"):
        ops.quantize(good, weight, bytes_.astype(np.float32))
    with pytest.raises(ValueError, match="rows for this weight are"):
        ops.quantize(good.astype(np.float32 if good.dtype == np.uint16 else np.uint16), weight, bytes_)
    with pytest.raises(ValueError, match="not been packed"):
        ops.quantize(good, ops.PackedWeight(8, 6, "i8"), bytes_)
    with pytest.raises(ValueError, match="multiplies rows as they are"):
        ops.quantize(good, ops.PackedWeight(8, 6), bytes_)
    with pytest.raises(ValueError, match=r"x is \(4, 40\)|x is \(4, 39\)"):
        ops.linear(bytes_[:, 1:], weight, np.zeros((4, 8), np.float32))
    with pytest.raises(ValueError, match="multiple of 4 bytes"):
        ops.linear(np.zeros((4, nbytes + 1), np.uint8)[:, :nbytes], weight, np.zeros((4, 8), np.float32))
