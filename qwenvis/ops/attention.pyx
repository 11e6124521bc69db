"""Attention over segments, with an online softmax: memory grows with the longest segment, never with its square.

For each pair of a segment and a head, keys are rotated by rope and packed like a weight, values are packed as its
transpose; then blocks of queries pass by. Scores S = Q Kᵀ and results O = P V are both products with the GEMM tile, and
between them a tile of scores stays in L1. Where there are many pairs, a thread packs one and goes through its queries;
else all threads pack a wave, the pairs that fit into the scratch, and then share its queries.
"""

from libc.stdint cimport int32_t

import numpy as np

from qwenvis.ops.attention_head cimport (
    MAX_HEAD_DIM, QUERY_TILES, Heads, Job, Pair, attend_queries, pack_keys_values, pair_of, pair_size, scratch_size
)
from qwenvis.ops.runtime cimport Rows, ceil_div, format_named, parallel_for, round_up, rows_of, selected, threads

cdef enum:
    PACKED_NBYTES = 16 << 20  # of keys and values that are packed at a time, if one head needs no more: half of an L3
    PAIRS_PER_THREAD = 8      # at least, or they would not end together
    PAIR_NBYTES = 1 << 19     # of a pair that stays in L2


cdef void _plan(Job *job, Py_ssize_t heads, Py_ssize_t head_dim, Py_ssize_t longest, str format) except *:
    """Derive the sizes from the format in which attention multiplies where weights are in ``format``."""
    job.isa = selected()
    job.format = format_named(job.isa, format).attention
    job.heads, job.head_dim, job.padded_dim = heads, head_dim, round_up(head_dim, job.format.nr // 2)
    job.pair_size = pair_size(job, longest)
    job.scratch_size = scratch_size(job)
    job.key_blocks, job.query_blocks = ceil_div(longest, job.format.nr), ceil_div(longest, QUERY_TILES * job.format.mr)


def attention_scratch(Py_ssize_t longest, Py_ssize_t pairs, Py_ssize_t head_dim, str format="f32"):
    """Return the floats of scratch for `attention`: ``longest`` segment, ``pairs`` = segments * heads."""
    cdef Job job
    _plan(&job, 1, head_dim, longest, format)
    cdef Py_ssize_t wave = max(1, min(pairs, PACKED_NBYTES // max(1, job.pair_size)))
    return (wave * job.pair_size + threads() * job.scratch_size) // 4


def attention(qkv, rope, const int32_t[::1] cu_seqlens, out, float[::1] scratch, *, str format="f32"):
    """Compute out = softmax(q kᵀ / sqrt(head_dim)) v by segment and head, with q and k rotated by rope; return ``out``.

    ``qkv`` = (q, k, v): q is (n, heads, head_dim), k and v (n, kv_heads, head_dim), float32, any strides but the last;
    ``rope`` = (cos, sin), each (n, head_dim / 2); ``cu_seqlens`` (segments + 1,) int32 from 0 to n; ``out``
    (n, heads * head_dim) float32, or bfloat16 in uint16; ``scratch`` at least `attention_scratch` floats for one pair;
    more floats hold more pairs. ``format`` is what rotated queries and keys, values and softmax weights are rounded to,
    where the ISA multiplies that; scores, sums and the softmax itself are float32.
    Formula: transformers VisionAttention and apply_rotary_pos_emb_vision; softmax: Milakov and Gimelshein,
    arXiv 1805.02867.
    """
    cdef const float[:, :, :] q = qkv[0], k = qkv[1], v = qkv[2]
    cdef const float[:, ::1] cos = rope[0], sin = rope[1]
    cdef Py_ssize_t n = q.shape[0], heads = q.shape[1], d = q.shape[2], pairs = (cu_seqlens.shape[0] - 1) * heads
    cdef Job job
    job.out = rows_of(out, "out", True)
    _check_shapes(q, k, v, &job.out)
    _check_places(n, d, cos, sin, cu_seqlens)
    if n == 0:
        return out
    cdef Py_ssize_t longest = np.diff(cu_seqlens).max()
    _plan(&job, heads, d, longest, format)
    job.q, job.k, job.v = _heads_of(q), _heads_of(k), _heads_of(v)
    job.group = heads // k.shape[1]
    job.cos, job.sin, job.cu_seqlens = &cos[0, 0], &sin[0, 0], &cu_seqlens[0]
    cdef Py_ssize_t wave = min((scratch.shape[0] * 4 - threads() * job.scratch_size) // job.pair_size, pairs)
    if wave < 1:
        raise ValueError(f"scratch has {scratch.shape[0]} floats; one pair needs "
                         f"{attention_scratch(longest, 1, d, format)}")
    job.scratch = <char *>&scratch[0]
    job.packed = job.scratch + threads() * job.scratch_size
    with nogil:
        partition(&job, pairs, wave)
    return out


cdef Heads _heads_of(const float[:, :, :] x) noexcept:
    return Heads(&x[0, 0, 0], x.strides[0] // <Py_ssize_t>sizeof(float), x.strides[1] // <Py_ssize_t>sizeof(float))


cdef _check_shapes(const float[:, :, :] q, const float[:, :, :] k, const float[:, :, :] v, const Rows *out):
    cdef Py_ssize_t n = q.shape[0], heads = q.shape[1], d = q.shape[2]
    if d % 2 or not 0 < d <= MAX_HEAD_DIM:
        raise ValueError(f"head_dim is {d}; expected an even number up to {MAX_HEAD_DIM}")
    if k.shape[0] != n or v.shape[0] != n or k.shape[2] != d or v.shape[2] != d:
        raise ValueError(f"q, k and v differ in rows or head_dim: {n} x {d}, {k.shape[0]} x {k.shape[2]} and "
                         f"{v.shape[0]} x {v.shape[2]}")
    if k.shape[1] == 0 or heads % k.shape[1] or v.shape[1] != k.shape[1]:
        raise ValueError(f"{heads} query heads cannot share {k.shape[1]} key and {v.shape[1]} value heads")
    if out.n != n or out.d != heads * d:
        raise ValueError(f"out is ({out.n}, {out.d}), expected ({n}, {heads * d})")
    if n and (q.strides[2] != sizeof(float) or k.strides[2] != sizeof(float) or v.strides[2] != sizeof(float)):
        raise ValueError("rows must be contiguous")


cdef _check_places(Py_ssize_t n, Py_ssize_t d, const float[:, ::1] cos, const float[:, ::1] sin,
                   const int32_t[::1] cu_seqlens):
    if cos.shape[0] != n or cos.shape[1] != d // 2 or sin.shape[0] != n or sin.shape[1] != d // 2:
        raise ValueError(f"rope must be two arrays of ({n}, {d // 2})")
    cdef Py_ssize_t i, last = cu_seqlens.shape[0] - 1
    rising = last >= 0 and cu_seqlens[0] == 0 and cu_seqlens[last] == n
    for i in range(last):
        rising = rising and cu_seqlens[i] <= cu_seqlens[i + 1]
    if not rising:
        raise ValueError(f"cu_seqlens must rise from 0 to {n}")


cdef void _pack_task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t nth = index // job.key_blocks
    cdef Pair pair = pair_of(job, job.first_pair + nth, job.packed + nth * job.pair_size)
    pack_keys_values(job, &pair, index % job.key_blocks, job.scratch + worker * job.scratch_size)


cdef void _query_task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t nth = index // job.query_blocks
    cdef Pair pair = pair_of(job, job.first_pair + nth, job.packed + nth * job.pair_size)
    attend_queries(job, &pair, index % job.query_blocks, job.scratch + worker * job.scratch_size)


cdef void _pair_task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Pair pair = pair_of(job, index, job.packed + worker * job.pair_size)
    cdef Py_ssize_t block
    for block in range(job.key_blocks):
        pack_keys_values(job, &pair, block, job.scratch + worker * job.scratch_size)
    for block in range(job.query_blocks):
        attend_queries(job, &pair, block, job.scratch + worker * job.scratch_size)


cdef void partition(Job *job, Py_ssize_t pairs, Py_ssize_t wave) noexcept nogil:
    """Share out whole pairs if they are small and many; else wave by wave, in two steps."""
    cdef Py_ssize_t count, i
    if pairs >= PAIRS_PER_THREAD * threads() and wave >= threads() and job.pair_size <= PAIR_NBYTES:
        parallel_for(_pair_task, job, pairs)
        return
    for i in range(ceil_div(pairs, wave)):
        job.first_pair = i * wave
        count = min(wave, pairs - job.first_pair)
        parallel_for(_pack_task, job, count * job.key_blocks)
        parallel_for(_query_task, job, count * job.query_blocks)
