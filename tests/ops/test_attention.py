"""Attention over segments: every head_dim, every length of a segment, any scratch, any layout, the same bits."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made.arrays import assert_same_bits, fenced
from made.segments import attend, check, cumulated, segments_of
from made.tile_sizes import ISAS, constant, using_isa
from qwenvis import ops

KEYS, QUERY_TILES = (constant("ops/attention_head.pxd", name) for name in ("KEYS", "QUERY_TILES"))
HEAD_DIMS = [64, 72, 80, 128, 4, 8, 12, 2, 256]


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_every_head_dim(isa, rng, head_dim):
    check(*segments_of(rng, [1, 0, 7, KEYS + 44, 2], head_dim=head_dim))


@pytest.mark.parametrize("edge", [1, 2, KEYS, 2 * KEYS])
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_edges_of_a_block_of_keys(isa, rng, edge, step):
    if edge + step:
        check(*segments_of(rng, [3, edge + step, 5], head_dim=12))


def test_edges_of_panels_and_of_blocks_of_queries(tile, rng):
    rows = QUERY_TILES * tile.mr
    for edge in (tile.mr, tile.nr // 2, tile.nr, rows, 2 * rows):
        check(*segments_of(rng, [edge - 1, edge, edge + 1], head_dim=12))


@pytest.mark.parametrize(
    "lengths",
    [[0, 0, 4, 0], [0, 9], [1] * 40, [4] * 30, [16, 64, 8, 32, 4] * 4, [0, 1, 0, 2, 0, 0, 3, 0], [3 * KEYS + 17]],
    ids=str,
)
def test_segments(isa, rng, lengths):
    check(*segments_of(rng, lengths, head_dim=8))


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 1), (4, 2), (6, 2), (3, 3)])
def test_grouped_queries(isa, rng, heads, kv_heads):
    check(*segments_of(rng, [30, 11], heads, kv_heads, 12))


def test_queries_keys_and_values_lie_where_they_like(isa, rng):
    qkv, rope, cu_seqlens = segments_of(rng, [30, 11], 4, 2, 12)
    want = attend(qkv, rope, cu_seqlens)
    apart = [fenced(part, pad=pad) for part, pad in zip(qkv, (1, 2, 7), strict=True)]
    assert_same_bits(attend(apart, rope, cu_seqlens), want, "each in its own array")
    heads_first = [np.ascontiguousarray(part.swapaxes(0, 1)).swapaxes(0, 1) for part in qkv]
    assert_same_bits(attend(heads_first, rope, cu_seqlens), want, "heads before rows")


@given(
    isa=st.sampled_from(ISAS),
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=6).filter(any),
    half=st.integers(1, 45),
    kv_heads=st.integers(1, 2),
    shared=st.integers(1, 2),
)
def test_any_shape(isa, lengths, half, kv_heads, shared):
    rng = np.random.default_rng((*lengths, half, kv_heads, shared))
    with using_isa(isa):
        check(*segments_of(rng, lengths, kv_heads * shared, kv_heads, 2 * half))


@pytest.mark.parametrize("lengths", [[5, 0, 100, 3], [KEYS + 90], [8] * 20], ids=str)
def test_more_scratch_changes_no_bits(isa, rng, lengths):
    given = segments_of(rng, lengths, heads=3, kv_heads=3)
    want = attend(*given, pairs=1)
    for pairs in (2, 3, 7, 1000):
        assert_same_bits(attend(*given, pairs=pairs), want, f"{pairs} pairs")


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("lengths", [[5, 0, 100, 3], [KEYS + 90], [8] * 20], ids=str)
def test_threads_change_no_bits(isa, rng, lengths, threads):
    given = segments_of(rng, lengths, heads=3, kv_heads=1)
    want = attend(*given)
    with ops.use_threads(threads):
        for pairs in (1, 4, 1000):
            assert_same_bits(attend(*given, pairs=pairs), want, f"{threads} threads, {pairs} pairs")


def test_segment_depends_on_nothing_but_itself(isa, rng):
    (q, k, v), (cos, sin), cu_seqlens = segments_of(rng, [13, KEYS + 9, 1, 40], heads=4, kv_heads=2)
    want = attend((q, k, v), (cos, sin), cu_seqlens)
    for start, stop in pairwise(cu_seqlens):
        part = slice(start, stop)
        alone = attend((q[part], k[part], v[part]), (cos[part], sin[part]), cumulated([stop - start]))
        assert_same_bits(alone, want[part], f"rows {start} to {stop} alone")
    for head in range(4):
        one = slice(head, head + 1), slice(head // 2, head // 2 + 1)
        alone = attend((q[:, one[0]], k[:, one[1]], v[:, one[1]]), (cos, sin), cu_seqlens)
        assert_same_bits(alone, want[:, one[0]], f"head {head} alone")


def test_query_does_not_depend_on_its_place(isa, rng):
    """All queries are the same, wherever in a tile or a block they stand; so must be their results."""
    (q, k, v), _, cu_seqlens = segments_of(rng, [KEYS + 60])
    still = np.ones((len(q), 4), np.float32), np.zeros((len(q), 4), np.float32)
    q[...] = q[:1]
    got = attend((q, k, v), still, cu_seqlens)
    assert_same_bits(got, np.broadcast_to(got[:1], got.shape))


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7F800001, 0x7FFFFFFF])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_not_a_number_stays_in_its_segment_and_shows_there(isa, rng, part, bits):
    """NaN may have any payload: integer arithmetic on its bits could make a number of it."""
    qkv, rope, cu_seqlens = segments_of(rng, [9, 20, 40], heads=2, kv_heads=1)
    want = attend(qkv, rope, cu_seqlens)
    qkv[part][15] = np.uint32(bits).view(np.float32)
    got = attend(qkv, rope, cu_seqlens)
    assert_same_bits(got[:9], want[:9], "segment before")
    assert_same_bits(got[29:], want[29:], "segment behind")
    touched = [15] if part == 0 else list(range(9, 29))
    assert np.isnan(got[touched]).all()


def test_no_rows(isa):
    nothing, table = np.empty((0, 2, 8), np.float32), np.empty((0, 4), np.float32)
    for lengths in ([], [0], [0, 0]):
        out = np.empty((0, 16), np.float32)
        assert ops.attention((nothing,) * 3, (table,) * 2, cumulated(lengths), out, np.empty(0, np.float32)) is out


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


FITS = {"q": zeros(6, 2, 8), "k": zeros(6, 2, 8), "v": zeros(6, 2, 8), "cos": zeros(6, 4), "sin": zeros(6, 4)}
FITS |= {"cu_seqlens": cumulated([2, 4]), "out": zeros(6, 16)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": zeros(5, 2, 8)}, "differ in rows or head_dim: 6 x 8, 5 x 8 and 6 x 8"),
        ({"v": zeros(6, 2, 6)}, "differ in rows or head_dim: 6 x 8, 6 x 8 and 6 x 6"),
        ({"k": zeros(6, 3, 8), "v": zeros(6, 3, 8)}, "2 query heads cannot share 3 key and 3 value heads"),
        ({"v": zeros(6, 1, 8)}, "2 query heads cannot share 2 key and 1 value heads"),
        ({"k": zeros(6, 0, 8), "v": zeros(6, 0, 8)}, "cannot share 0 key"),
        ({"q": zeros(6, 2, 7), "k": zeros(6, 2, 7), "v": zeros(6, 2, 7)}, "head_dim is 7; expected an even number"),
        ({"q": zeros(6, 2, 258), "k": zeros(6, 2, 258), "v": zeros(6, 2, 258)}, "head_dim is 258; expected .* to 256"),
        ({"out": zeros(6, 8)}, r"out is \(6, 8\), expected \(6, 16\)"),
        ({"out": zeros(5, 16)}, r"out is \(5, 16\)"),
        ({"out": zeros(6, 32)[:, ::2]}, "contiguous"),
        ({"q": zeros(6, 2, 16)[:, :, ::2]}, "contiguous"),
        ({"cos": zeros(6, 8)}, r"rope must be two arrays of \(6, 4\)"),
        ({"sin": zeros(5, 4)}, r"rope must be two arrays of \(6, 4\)"),
        ({"cu_seqlens": cumulated([2, 3])}, "cu_seqlens must rise from 0 to 6"),
        ({"cu_seqlens": cumulated([2, 4]) + np.int32(1)}, "cu_seqlens must rise from 0 to 6"),
        ({"cu_seqlens": cumulated([4, -2, 4])}, "cu_seqlens must rise from 0 to 6"),
        ({"cu_seqlens": np.array([0], np.int32)}, "cu_seqlens must rise from 0 to 6"),
        ({"cu_seqlens": np.array([], np.int32)}, "cu_seqlens must rise from 0 to 6"),
        ({"cu_seqlens": np.array([0, 6])}, "dtype"),
        ({"q": zeros(6, 2, 8, dtype=np.float64)}, "dtype"),
        ({"out": zeros(6, 2, 8)}, "dimensions"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    a = FITS | changed
    with pytest.raises(ValueError, match=message):
        ops.attention((a["q"], a["k"], a["v"]), (a["cos"], a["sin"]), a["cu_seqlens"], a["out"], zeros(1 << 16))


@pytest.mark.parametrize("threads", [1, 2])
def test_scratch_for_less_than_one_pair_is_refused(isa, threads):
    with ops.use_threads(threads):
        least = ops.attention_scratch(4, 1, 8)
        given = [FITS[name] for name in "qkv"], [FITS["cos"], FITS["sin"]], FITS["cu_seqlens"], FITS["out"]
        ops.attention(*given, zeros(least))
        for size in (least - 1, 1, 0):
            with pytest.raises(ValueError, match=f"scratch has {size} floats; one pair needs {least}"):
                ops.attention(*given, zeros(size))


def test_scratch_does_not_grow_with_the_square(isa):
    """An image of 16384 patches: one pair's keys and values, and the workers' blocks."""
    one, both = ops.attention_scratch(16384, 1, 80), ops.attention_scratch(32768, 1, 80)
    assert both - one == pytest.approx(2 * 16384 * 80, rel=0.2)
    assert ops.attention_scratch(16384, 10**6, 80) < 2 * one + (4 << 20)
