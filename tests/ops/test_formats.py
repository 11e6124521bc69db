"""The number formats of weights and rows: what is rounded, what is not, and what is refused."""

import math

import ml_dtypes
import numpy as np
import pytest

from made.arrays import Fenced, assert_same_bits, normal
from made.tile_sizes import constant, using_isa
from oracle import reference
from oracle.tolerance import UNIT_ROUNDOFF, assert_close
from qwenvis import ops
from qwenvis.nn.workspace import Workspace

BF16 = ml_dtypes.bfloat16
CHUNK = constant("kernels/kernels.h", "QV_CHUNK")
EXPANDED_ROWS = constant("ops/linear.pyx", "EXPANDED_ROWS")
SHAPES = [(1, 1, 1), (13, 7, 5), (14, 64, 32), (15, 129, 48), (29, 300, 33), (70, 588, 96)]  # (m, k, n)
every_format = pytest.mark.parametrize("format", ops.formats())
every_float = pytest.mark.parametrize("format", [name for name, facts in ops.formats().items() if facts.itemsize > 1])


def rounded(x):
    """Float32 values that bfloat16 holds exactly."""
    return x.astype(BF16).astype(np.float32)


def rows(x, dtype):
    """An array as the rows that a format multiplies, in a workspace whose padding is no number."""
    ws = Workspace().fit({"x": (*x.shape, dtype)})
    whole = np.lib.stride_tricks.as_strided(ws.x, (len(x), ws.x.strides[0] // ws.x.itemsize), ws.x.strides)
    whole[:] = 0x7FC0 if dtype == "uint16" else np.nan
    return ops.gather(x, np.arange(len(x)), ws.x)


def packed(format, w, b, **options):
    weight = ops.PackedWeight(*w.shape, format, **options)
    weight.pack(w)
    weight.pack_bias(b)
    return weight


def product(x, weight):
    """X Wᵀ + b in float32."""
    return ops.linear(rows(x, weight.rows_dtype), weight, np.empty((len(x), weight.shape[0]), np.float32))


def stored(format, w):
    """The values that a format stores of a weight (n, k): its product with unit rows, which is exact."""
    return product(np.eye(w.shape[1], dtype=np.float32), packed(format, w, np.zeros(len(w)))).T


def test_a_weight_keeps_its_leading_bits(isa, rng):
    """Float32 keeps a weight as it is, bfloat16 to 8 bits, and int8, where it is expanded, to half a step.

    A step is a 127th of the largest entry of the balanced weight's row; `test_quantize` has the other int8.
    """
    w = normal(rng, 45, 70)
    assert_same_bits(stored("f32", w), w)
    assert_same_bits(stored("bf16", w), rounded(w))
    if ops.formats()["i8"].expanded:
        norms = np.linalg.norm(w.astype(np.float64), axis=0)
        steps = np.abs(w / norms).max(axis=1, keepdims=True) / 127 * norms
        assert_close(stored("i8", w), w, (0.5 + 127 * 8 * UNIT_ROUNDOFF["f32"]) * steps, "i8")


@every_float
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_those_of_the_stored_values(isa, rng, format, shape):
    """Products of bfloat16 are exact in float32, so only their sums are rounded."""
    m, k, n = shape
    x, w, b = rounded(normal(rng, m, k)), normal(rng, n, k), normal(rng, n)
    weight, out, kept = packed(format, w, b), Fenced(m, n), stored(format, w)
    ops.linear(rows(x, weight.rows_dtype), weight, out.array)
    bound = 2.0**-22 * (k + 8) ** 0.5 * (np.abs(x) @ np.abs(kept).T + np.abs(b)) + 1e-30
    assert_close(out.array, reference.linear(x, kept, b), bound, "sums")
    out.assert_intact()


@every_format
@pytest.mark.parametrize("k", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_an_expanded_weight_has_the_bits_of_float32(tile, rng, format, k):
    """On every edge of its tasks of rows."""
    if not ops.formats()[format].expanded:
        pytest.skip("this instruction set multiplies the format")
    full, n = EXPANDED_ROWS // tile.mr * tile.mr, 15 * tile.nr + 1  # so many panels that one thread gets full tasks
    x, w, b = normal(rng, 2 * full + 1, k), normal(rng, n, k), normal(rng, n)
    weight, wide = packed(format, w, b), packed("f32", stored(format, w), b)
    for m in [1, tile.mr + 1, full, 2 * full, len(x)]:
        with ops.use_threads(1):
            assert_same_bits(product(x[:m], weight), product(x[:m], wide), f"{m} rows")


@every_float
@pytest.mark.parametrize("source", [np.float32, np.float16, BF16])
def test_weights_are_rounded_once(isa, rng, format, source):
    """From the stored dtype of a checkpoint: what is rounded already stays as it is."""
    x, w, b = normal(rng, 20, 50), normal(rng, 40, 50).astype(source), normal(rng, 40)
    got, kept = product(x, packed(format, w, b)), stored(format, w.astype(np.float32))
    assert_same_bits(got, product(x, packed(format, kept, b)))


@every_float
def test_gated_halves(isa, rng, format):
    gate, up, b = normal(rng, 35, 66), normal(rng, 35, 66), normal(rng, 35)
    weight = packed(format, gate, b, gated=True)
    weight.pack(up, 1)
    weight.pack_bias(2 * b, 1)
    x, out = rounded(normal(rng, 17, 66)), np.empty((17, 35), np.float32)
    ops.linear(rows(x, weight.rows_dtype), weight, out, activation="silu_gate")
    halves = reference.linear(x, stored(format, gate), b), reference.linear(x, stored(format, up), 2 * b)
    assert_close(out, reference.silu_gate(*halves), 1e-5, "gate")


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
def test_outputs_are_rounded_to_nearest(isa, rng, n):
    x, w = normal(rng, 9, 33), normal(rng, n, 33)
    weight = ops.PackedWeight(n, 33)
    weight.pack(w)
    wide, half = np.empty((9, n), np.float32), np.empty((9, n), np.uint16)
    ops.linear(x, weight, wide)
    ops.linear(x, weight, half)
    assert np.array_equal(half, wide.astype(BF16).view(np.uint16))


def test_ties_go_to_even_and_what_is_no_number_stays_none(isa):
    x = np.array([[1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, np.inf, -np.inf, np.nan, 3.4e38, 0.0, -0.0]], np.float32)
    out = ops.gather(x, np.array([0]), np.empty(x.shape, np.uint16)).view(BF16)
    want = x.astype(BF16)
    assert np.array_equal(np.isnan(out), np.isnan(want))
    assert np.array_equal(out[~np.isnan(want)].view(np.uint16), want[~np.isnan(want)].view(np.uint16))


def test_norms_write_bfloat16(isa, rng):
    x, w, b = normal(rng, 40, 70), normal(rng, 70), normal(rng, 70)
    wide, half = np.empty((10, 280), np.float32), np.empty((10, 280), np.uint16)
    for norm in (lambda out: ops.layer_norm(x, w, b, 1e-6, out), lambda out: ops.rms_norm(x, w, 1e-6, out)):
        assert np.array_equal(norm(half), norm(wide).astype(BF16).view(np.uint16))


@every_format
@pytest.mark.parametrize("head_dim", [12, 64, 72, 80, 128])
@pytest.mark.parametrize("lengths", [[1], [33, 1, 64], [300], [513, 7]], ids=str)
def test_attention(isa, rng, format, head_dim, lengths):
    """Within a few roundings of bfloat16; exact inputs and few keys leave only those of rope and of the weights."""
    n, heads = sum(lengths), 2
    qkv = [normal(rng, n, heads, head_dim) for _ in range(3)]
    angles = rng.standard_normal((n, head_dim // 2))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    cu_seqlens = np.cumsum([0, *lengths]).astype(np.int32)
    out = np.empty((n, heads * head_dim), np.float32)
    scratch = np.empty(ops.attention_scratch(max(lengths), 1, head_dim, format), np.float32)
    ops.attention(qkv, (cos, sin), cu_seqlens, out, scratch, format=format)
    rotated = [reference.rope(part, cos, sin) for part in qkv[:2]]
    want = reference.attention(*rotated, qkv[2], cu_seqlens).reshape(n, -1)
    assert_close(out, want, 2e-2 if ops.formats()[format].rows_dtype == "uint16" else 3e-6, "attention")


@every_format
def test_threads_and_neighbours_change_no_bits(isa, rng, format):
    x, w, b = normal(rng, 200, 90), normal(rng, 150, 90), normal(rng, 150)
    weight = packed(format, w, b)
    every = rows(x, weight.rows_dtype)
    outs = []
    for threads in (1, 2, 5):
        with ops.use_threads(threads):
            outs.append(ops.linear(every, weight, np.empty((200, 150), np.float32)))
    alone = ops.linear(every[77:78], weight, np.empty((1, 150), np.float32))
    assert_same_bits(outs[1], outs[0])
    assert_same_bits(outs[2], outs[0])
    assert_same_bits(alone, outs[0][77:78])


@pytest.mark.parametrize("op", ["pack", "linear"])
def test_scratch_memory_is_that_of_all_threads_that_run(monkeypatch, rng, op):
    """Code that runs once it is allocated, as of garbage that is collected, may end a block of `use_threads`."""
    w, x, fences = normal(rng, 300, 90), normal(rng, 3000, 90), []
    with using_isa("generic"):
        weight = packed("bf16", w, w[:, 0])
    run = {"pack": lambda: weight.pack(w), "linear": lambda: ops.linear(x, weight, out)}[op]
    out, inner = np.empty((3000, 300), np.float32), ops.use_threads(1)

    def interrupted(shape, dtype):
        monkeypatch.undo()
        inner.__exit__(None, None, None)
        size = math.prod(np.atleast_1d(shape).tolist())
        fences.append(np.full(8 * size, 7, dtype))
        return fences[0][:size].reshape(shape)

    with ops.use_threads(8):
        inner.__enter__()
        monkeypatch.setattr(np, "empty", interrupted)
        run()
    assert (fences[0][len(fences[0]) // 8 :] == 7).all()


@every_format
def test_what_does_not_fit_is_refused(isa, rng, format):
    weight = packed(format, normal(rng, 8, 6), normal(rng, 8))
    good, out = rows(normal(rng, 4, 6), weight.rows_dtype), np.empty((4, 8), np.float32)
    other = "float32" if weight.rows_dtype == "uint16" else "uint16"
    with pytest.raises(ValueError, match="the weight multiplies"):
        ops.linear(rows(normal(rng, 4, 6), other), weight, out)
    with pytest.raises(ValueError, match="add=True"):
        ops.linear(good, weight, np.empty((4, 8), np.uint16), add=True)
    with pytest.raises(ValueError, match="unknown format 'int4'"):
        ops.PackedWeight(8, 6, "int4")
    with pytest.raises(ValueError, match="not been packed"):
        ops.linear(good, ops.PackedWeight(8, 6, format), out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        ops.linear(good, weight, out)
    if weight.rows_dtype == "uint16" and not ops.formats()[format].quantized:
        odd = np.zeros((4, 7), np.uint16)[:, :6]
        with pytest.raises(ValueError, match="7 entries apart"):
            ops.linear(odd, weight, np.empty((4, 8), np.float32))
