"""The product with packed weights: every edge of a tile, gated weights, sources of any float type, refusals."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made.arrays import Fenced, assert_same_bits, fenced, normal
from made.tile_sizes import ISAS, constant, using_isa
from oracle import reference
from oracle.tolerance import activation_tolerance, assert_close, dot_tolerance
from qwenvis import ops
from qwenvis.ops import PackedWeight, linear

ROW_TILES, COLUMNS = (constant("ops/linear.pyx", name) for name in ("ROW_TILES", "COLUMNS"))


def packed(w, b=None):
    weight = PackedWeight(*w.shape)
    weight.pack(w)
    if b is not None:
        weight.pack_bias(b)
    return weight


def gated(gate, up, biases=()):
    weight = PackedWeight(*gate.shape, gated=True)
    for half, w in enumerate((gate, up)):
        weight.pack(w, half=half)
    for half, b in enumerate(biases):
        weight.pack_bias(b, half=half)
    return weight


def product(x, weight, m=None, **how):
    """The op on fenced arrays; it must return its output and leave the rest alone."""
    m = len(x) if m is None else m
    out = Fenced(m, weight.shape[0])
    assert linear(x[:m], weight, out.array, **how) is out.array
    result = out.array.copy()
    out.assert_intact()
    return result


def check(x, w, b=None):
    """A product against the truth. Returns it."""
    got = product(fenced(x), packed(w, b))
    assert_close(got, reference.linear(x, w, b), dot_tolerance(x, w, 0 if b is None else b), f"{x.shape} {w.shape}")
    return got


@pytest.mark.parametrize("k", [1, 2, 31])
def test_every_edge_of_a_tile(tile, rng, k):
    """And a row's bits are the same for every number of rows."""
    mr, nr = tile
    x = fenced(normal(rng, 2 * ROW_TILES * mr + 1, k))
    for n in [1, nr // 2 - 1, nr // 2, nr // 2 + 1, nr - 1, nr, nr + 1, 2 * nr + nr // 2, 5 * nr - 3]:
        w, b = normal(rng, n, k), normal(rng, n)
        got = check(x, w, b)
        weight = packed(w, b)
        for m in [1, mr - 1, mr, mr + 1, 3 * mr - 1, ROW_TILES * mr]:
            assert_same_bits(product(x, weight, m), got[:m], f"{m} rows, {n} columns")


def test_several_tasks_each_way(tile, rng):
    mr, nr = tile
    m, n = 2 * ROW_TILES * mr + 3, 2 * COLUMNS + nr // 2 + 1
    check(normal(rng, m, 17), normal(rng, n, 17), normal(rng, n))


@pytest.mark.parametrize(("n", "k"), [(37, 1176), (40, 588), (33, 3420), (17, 4304), (3420, 7), (4304, 5)])
def test_sizes_of_the_towers(tile, rng, n, k):
    check(normal(rng, tile.mr + 1, k), normal(rng, n, k), normal(rng, n))


@given(isa=st.sampled_from(ISAS), m=st.integers(1, 50), n=st.integers(1, 100), k=st.integers(1, 70))
def test_any_shape(isa, m, n, k):
    rng = np.random.default_rng((m, n, k))
    with using_isa(isa):
        check(normal(rng, m, k), normal(rng, n, k), normal(rng, n))


def test_residual_is_added(isa, rng):
    x, w, b, residual = normal(rng, 30, 19), normal(rng, 53, 19), normal(rng, 53), normal(rng, 30, 53)
    out = Fenced(30, 53)
    out.array[...] = residual
    linear(fenced(x), packed(w, b), out.array, add=True)
    assert_same_bits(out.array, residual + product(x, packed(w, b)), "sum")
    out.assert_intact()


GATED = [(1, 1), (7, 3), (8, 5), (16, 40), (17, 29), (63, 13), (1710, 6), (3420, 5)]


@pytest.mark.parametrize(("n", "k"), GATED)
def test_gated_weight(tile, rng, n, k):
    x, gate, up = normal(rng, 2 * tile.mr + 1, k), normal(rng, n, k), normal(rng, n, k)
    biases = normal(rng, 2, n)
    got = product(fenced(x), gated(gate, up, biases), activation="silu_gate")
    g, u = reference.linear(x, gate, biases[0]), reference.linear(x, up, biases[1])
    silu, error_of_u = np.abs(reference.silu(g)), dot_tolerance(x, up, biases[1])
    error_of_silu = activation_tolerance(g, dot_tolerance(x, gate, biases[0]))
    assert_close(got, reference.silu_gate(g, u), error_of_silu * (np.abs(u) + error_of_u) + silu * error_of_u)
    for m in (1, tile.mr):
        assert_same_bits(product(x, gated(gate, up, biases), m, activation="silu_gate"), got[:m])


@pytest.mark.parametrize("activation", [name for name in ops.ACTIVATIONS if name != "silu_gate"])
def test_activation_follows_product_and_bias(isa, rng, activation):
    formulas = {"none": lambda y: y, "quick_gelu": reference.quick_gelu, "gelu": reference.gelu}
    formulas["gelu_pytorch_tanh"] = reference.gelu_tanh
    x, w, b = normal(rng, 31, 23), normal(rng, 45, 23), normal(rng, 45)
    y = reference.linear(x, w, b)
    tolerance = activation_tolerance(y, dot_tolerance(x, w, b))
    assert_close(product(fenced(x), packed(w, b), activation=activation), formulas[activation](y), tolerance)


@pytest.mark.parametrize("format", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_source_of_any_float_gives_the_bits_of_its_float32(isa, rng, format):
    x, w, b = normal(rng, 9, 37), normal(rng, 71, 37).astype(format), normal(rng, 71).astype(format)
    w[0, :4] = [0.0, -0.0, np.finfo(np.float16).smallest_subnormal, 65504]
    for threads in (1, 2):
        with ops.use_threads(threads):
            got = product(x, packed(w, b))
        assert_same_bits(got, product(x, packed(w.astype(np.float32), b.astype(np.float32))))


def test_bfloat16_halves_of_a_gated_weight(isa, rng):
    x, halves = normal(rng, 9, 37), normal(rng, 2, 71, 37).astype(ml_dtypes.bfloat16)
    got = product(x, gated(*halves), activation="silu_gate")
    assert_same_bits(got, product(x, gated(*halves.astype(np.float32)), activation="silu_gate"))


def test_threads_pack_the_same(isa, rng):
    """Each worker widens bfloat16 in a place of its own."""
    x, w = normal(rng, 2, 300), normal(rng, 3000, 300).astype(ml_dtypes.bfloat16)
    want = product(x, packed(w.astype(np.float32)))
    with ops.use_threads(5):
        assert_same_bits(product(x, packed(w)), want)


def test_source_of_any_layout(isa, rng):
    x, w = normal(rng, 9, 36), normal(rng, 20, 36)
    want = product(x, packed(w))
    strided = np.zeros((20, 72), np.float32)[:, ::2]
    strided[:] = w
    assert_same_bits(product(x, packed(np.asfortranarray(w))), want)
    assert_same_bits(product(x, packed(strided)), want)
    kernel = PackedWeight(20, 36)
    kernel.pack(w.reshape(20, 3, 2, 2, 3))
    assert_same_bits(product(x, kernel), want)


def test_packed_weight_is_a_copy(isa, rng):
    x, w, b = normal(rng, 3, 20), normal(rng, 20, 20), normal(rng, 20)
    want, weight = product(x, packed(w, b)), packed(w, b)
    w[:], b[:] = np.nan, np.nan
    assert_same_bits(product(x, weight), want)


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize(("m", "n"), [(1, 700), (200, 40), (300, 700)])
def test_threads_do_not_change_bits(isa, rng, m, n, threads):
    x, weight = fenced(normal(rng, m, 29)), packed(normal(rng, n, 29), normal(rng, n))
    want = product(x, weight)
    with ops.use_threads(threads):
        assert_same_bits(product(x, weight), want)


def test_row_depends_on_nothing_but_itself(tile, rng):
    x, weight = normal(rng, 3 * tile.mr + 2, 83), packed(normal(rng, 50, 83))
    want = product(x, weight)
    order = rng.permutation(len(x))
    assert_same_bits(product(x[order], weight), want[order], "other places")
    others = x.copy()
    others[1:] = np.nan
    assert_same_bits(product(others, weight)[:1], want[:1], "among NaN")


def test_rows_at_any_distance(isa, rng):
    x, weight = normal(rng, 40, 11), packed(normal(rng, 21, 11))
    want = product(x, weight)
    assert_same_bits(product(x[::3], weight), want[::3])
    assert_same_bits(product(x[::-1], weight), want[::-1])
    assert_same_bits(product(np.broadcast_to(x[0], x.shape), weight), np.broadcast_to(want[0], want.shape))


def test_weight_keeps_the_isa_it_was_packed_with(isa, rng):
    x, weight = normal(rng, 40, 11), packed(normal(rng, 50, 11))
    want = product(x, weight)
    for other in ISAS:
        with using_isa(other):
            assert_same_bits(product(x, weight), want, f"packed for {isa}, multiplied under {other}")


def test_no_rows(isa):
    out = np.empty((0, 5), np.float32)
    assert linear(np.empty((0, 4), np.float32), packed(np.ones((5, 4), np.float32)), out) is out


def test_shape_and_size_of_a_weight(tile):
    weight = PackedWeight(3 * tile.nr + 1, 40)
    assert weight.shape == (3 * tile.nr + 1, 40)
    columns = 3 * tile.nr + tile.nr // 2  # the last panel is narrow
    assert 4 * columns * 41 <= weight.nbytes < 4 * columns * 41 + 3 * 64


@pytest.mark.parametrize("n", [0, -1])
def test_weight_of_nothing(n):
    with pytest.raises(ValueError, match=rf"weight cannot have shape \({n}, 3\)"):
        PackedWeight(n, 3)
    with pytest.raises(ValueError, match=rf"weight cannot have shape \(3, {n}\)"):
        PackedWeight(3, n)


def one_entry_off(x, w, b):
    w[7, 11] *= 1.01


def columns_exchanged(x, w, b):
    w[[3, 4]] = w[[4, 3]]


def last_entry_of_k_missing(x, w, b):
    w[:, -1] = 0


def one_bias_missing(x, w, b):
    b[-1] = 0


def rows_exchanged(x, w, b):
    x[[0, -1]] = x[[-1, 0]]


def weight_in_bfloat16(x, w, b):
    w[:] = w.astype(ml_dtypes.bfloat16)


MISTAKES = [one_entry_off, columns_exchanged, last_entry_of_k_missing, one_bias_missing, rows_exchanged]


@pytest.mark.parametrize("mistake", [*MISTAKES, weight_in_bfloat16])
def test_mistake_is_seen(isa, rng, mistake):
    x, w, b = normal(rng, 16, 97), normal(rng, 40, 97), normal(rng, 40)
    want, tolerance = reference.linear(x, w, b), dot_tolerance(x, w, b)
    mistake(x, w, b)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(product(x, packed(w, b)), want, tolerance)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("x", "out", "how", "message"),
    [
        (zeros(2, 5), zeros(2, 3), {}, r"x is \(2, 5\), out \(2, 3\), weight \(3, 4\)"),
        (zeros(2, 4), zeros(2, 4), {}, r"out \(2, 4\)"),
        (zeros(2, 4), zeros(1, 3), {}, r"out \(1, 3\)"),
        (zeros(2, 8)[:, ::2], zeros(2, 3), {}, "contiguous"),
        (zeros(2, 4), zeros(2, 6)[:, ::2], {}, "contiguous"),
        (zeros(2, 4, dtype=np.float64), zeros(2, 3), {}, "dtype"),
        (zeros(2, 4), zeros(2, 3, dtype=np.float16), {}, "dtype"),
        (zeros(4), zeros(2, 3), {}, "dimensions"),
        (zeros(2, 4), zeros(2, 3), {"activation": "relu"}, "'relu' does not fit"),
        (zeros(2, 4), zeros(2, 3), {"activation": "silu_gate"}, "'silu_gate' does not fit a weight with gated=False"),
    ],
)
def test_what_does_not_fit_is_refused(x, out, how, message):
    with pytest.raises(ValueError, match=message):
        linear(x, packed(np.ones((3, 4), np.float32)), out, **how)


def test_gated_weight_wants_its_activation():
    with pytest.raises(ValueError, match="'none' does not fit a weight with gated=True"):
        linear(zeros(2, 4), PackedWeight(3, 4, gated=True), zeros(2, 3))


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (12, 1), (3, 2, 3)])
def test_source_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(3, 4\)"):
        PackedWeight(3, 4).pack(zeros(*shape))
    with pytest.raises(ValueError, match=r"bias has 4 entries, expected 3"):
        PackedWeight(3, 4).pack_bias(zeros(4))


@pytest.mark.parametrize("half", [-1, 1, 2])
def test_half_that_a_weight_does_not_have_is_refused(half):
    for weight in (PackedWeight(3, 4), PackedWeight(3, 4, gated=True)):
        if weight.gated and half == 1:
            continue
        with pytest.raises(ValueError, match="half"):
            weight.pack(zeros(3, 4), half=half)
        with pytest.raises(ValueError, match="half"):
            weight.pack_bias(zeros(3), half=half)
