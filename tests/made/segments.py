"""Attention in the tests: segments of random rows surrounded by poison, and the float64 reference."""

from __future__ import annotations

import numpy as np

from made.arrays import Fenced, fenced, normal
from oracle import reference
from oracle.tolerance import assert_close, attention_tolerance
from qwenvis import ops


def cumulated(lengths):
    return np.cumsum([0, *lengths]).astype(np.int32)


def turned_by(n, head_dim, scale=0.37):
    """Return (cos, sin) of angles that differ from row to row and from lane to lane."""
    angles = scale * np.arange(n)[:, None] / (1 + np.arange(head_dim // 2))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def fenced_heads(rng, n, heads, kv_heads, head_dim):
    """Return q, k and v as views into one buffer, with poison between heads and between rows."""
    buffer = Fenced(n, heads + 2 * kv_heads, head_dim + 3).array[:, :, :head_dim]
    buffer[...] = normal(rng, *buffer.shape)
    return buffer[:, :heads], buffer[:, heads : heads + kv_heads], buffer[:, heads + kv_heads :]


def scratch_of(cu_seqlens, heads, head_dim, pairs=1):
    """Return fenced scratch memory for ``pairs`` pairs of a segment and a head."""
    return Fenced(1, ops.attention_scratch(int(np.diff(cu_seqlens).max()), pairs, head_dim))


def attend(qkv, rope, cu_seqlens, pairs=1):
    """Run the op on fenced arrays; return (n, heads, head_dim)."""
    n, heads, head_dim = qkv[0].shape
    out, scratch = Fenced(n, heads * head_dim), scratch_of(cu_seqlens, heads, head_dim, pairs)
    assert ops.attention(qkv, rope, cu_seqlens, out.array, scratch.array[0]) is out.array
    result = out.array.reshape(qkv[0].shape).copy()
    out.assert_intact()
    scratch.assert_intact()
    return result


def truth(qkv, rope, cu_seqlens):
    q, k, v = qkv
    return reference.attention(reference.rope(q, *rope), reference.rope(k, *rope), v, cu_seqlens)


def check(qkv, rope, cu_seqlens):
    got = attend(qkv, rope, cu_seqlens)
    assert_close(got, truth(qkv, rope, cu_seqlens), attention_tolerance(*qkv, cu_seqlens))
    return got


def segments_of(rng, lengths, heads=2, kv_heads=2, head_dim=8):
    """Return the inputs of attention: q, k and v, the rope table, and cu_seqlens."""
    cu_seqlens = cumulated(lengths)
    n = int(cu_seqlens[-1])
    rope = tuple(fenced(table, pad=0) for table in turned_by(n, head_dim))
    return fenced_heads(rng, n, heads, kv_heads, head_dim), rope, cu_seqlens
