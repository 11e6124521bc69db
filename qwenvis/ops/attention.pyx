"""Attention over segments, with an online softmax: memory grows with the longest segment, never with its square.

For each segment and head, keys are turned by rope and packed like a weight, values are packed as its transpose; then
blocks of queries pass by. Scores S = Q Kᵀ and results O = P V are both products with the GEMM tile.
"""

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int32_t

import numpy as np

from qwenvis.ops.kernels cimport QV_MAX_NR, qv_format, qv_kernels
from qwenvis.ops.runtime cimport parallel_for, selected, threads

cdef enum:
    QUERY_TILES = 5  # tiles of queries a task: 70 rows with the AVX-512 tile
    KEYS = 256       # keys a block: scores, keys and values of a block stay in L2
    MAX_HEAD_DIM = 256
    PACKED = 4 << 20 # floats of packed keys and values at a time, if one head needs no more: 16 MB, half of an L3

cdef double LOG2_E = 1.4426950408889634


cdef struct Job:
    const qv_kernels *isa
    const qv_format *format
    const float *q
    const float *k
    const float *v
    const float *cos
    const float *sin
    float *out
    Py_ssize_t q_row, q_head, k_row, k_head, v_row, v_head, out_row  # strides in entries
    Py_ssize_t heads, head_dim, padded_dim, group                    # group: query heads of a key head
    const int32_t *cu_seqlens
    float *packed             # keys and values of one wave, pair after pair
    float *scratch            # of the workers
    Py_ssize_t pair_size      # packed floats of a pair
    Py_ssize_t scratch_size   # floats of a worker
    Py_ssize_t first_pair, blocks  # of a wave; a pair is (segment, head), in pieces of `blocks`
    float scale


# What one worker keeps of a block of queries.
cdef struct Queries:
    Py_ssize_t rows
    float *turned   # (rows, head_dim)
    float *sums     # (rows, padded_dim)
    float *tops     # (rows,) running maxima
    float *totals   # (rows,) running sums
    float *scores   # (rows, KEYS)


cdef inline Py_ssize_t _blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    return (n + size - 1) // size


cdef inline Py_ssize_t _round_up(Py_ssize_t n, Py_ssize_t unit) noexcept nogil:
    return _blocks(n, unit) * unit


cdef void _pack_piece(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """Keys of one panel of one pair, turned by rope; and their values."""
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t nr = job.format.nr, d = job.head_dim
    cdef Py_ssize_t pair = job.first_pair + index // job.blocks, segment = pair // job.heads
    cdef Py_ssize_t head = pair % job.heads // job.group
    cdef Py_ssize_t start = job.cu_seqlens[segment], n = job.cu_seqlens[segment + 1] - start
    cdef Py_ssize_t first = index % job.blocks * nr, row, column, width
    cdef Py_ssize_t count = min(nr, n - first), keys = _round_up(n, nr)
    cdef float turned[QV_MAX_NR * MAX_HEAD_DIM]
    cdef float *packed = job.packed + index // job.blocks * job.pair_size
    cdef float *values = packed + keys * d
    if count <= 0:
        return
    for row in range(count):
        job.isa.rope(job.k + (start + first + row) * job.k_row + head * job.k_head,
                     job.cos + (start + first + row) * (d // 2), job.sin + (start + first + row) * (d // 2), d // 2,
                     1.0, turned + row * d)
    job.format.pack(turned, d, count, d, packed + first * d, nr, nr)
    for column in range(_blocks(d, nr)):
        width = min(nr, job.padded_dim - column * nr)
        job.format.pack_transposed(
            job.v + (start + first) * job.v_row + head * job.v_head + column * nr, job.v_row,
            min(nr, d - column * nr), count, values + column * nr * keys + first * width, width)


cdef void _query_piece(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """One block of queries of one pair."""
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t rows = QUERY_TILES * job.format.mr, d = job.head_dim
    cdef Py_ssize_t pair = job.first_pair + index // job.blocks, segment = pair // job.heads, head = pair % job.heads
    cdef Py_ssize_t start = job.cu_seqlens[segment], n = job.cu_seqlens[segment + 1] - start
    cdef Py_ssize_t first = start + index % job.blocks * rows, row, block
    cdef Py_ssize_t count = min(rows, start + n - first)
    cdef const float *keys = job.packed + index // job.blocks * job.pair_size
    cdef Queries queries
    if count <= 0:
        return
    queries.rows = count
    queries.turned = job.scratch + worker * job.scratch_size
    queries.sums = queries.turned + rows * d
    queries.tops = queries.sums + rows * job.padded_dim
    queries.totals = queries.tops + rows
    queries.scores = queries.totals + rows
    for row in range(count):
        job.isa.rope(job.q + (first + row) * job.q_row + head * job.q_head, job.cos + (first + row) * (d // 2),
                     job.sin + (first + row) * (d // 2), d // 2, job.scale, queries.turned + row * d)
        queries.tops[row], queries.totals[row] = -INFINITY, 0
    for block in range(_blocks(n, KEYS)):
        _attend(job, &queries, keys, n, block * KEYS)
    for row in range(count):
        job.isa.scale(queries.sums + row * job.padded_dim, d, 1 / queries.totals[row],
                      job.out + (first + row) * job.out_row + head * d)


cdef void _attend(const Job *job, const Queries *queries, const float *keys, Py_ssize_t n,
                  Py_ssize_t first) noexcept nogil:
    """One block of keys, from ``first``: sums += 2^(S - tops) V and totals += 2^(S - tops), rescaled as tops rise."""
    cdef Py_ssize_t d = job.head_dim, nr = job.format.nr, rows = queries.rows
    cdef Py_ssize_t padded = _round_up(n, nr), count = min(KEYS, n - first), width, row, panel
    cdef const float *values = keys + padded * d
    cdef float *sums
    cdef float factor
    for panel in range(_blocks(count, nr)):
        _tiles(job.format, rows, d, queries.turned, d, keys + (first + panel * nr) * d, nr,
               queries.scores + panel * nr, KEYS, False)
    for row in range(rows):
        factor = job.isa.softmax(queries.scores + row * KEYS, count, _round_up(count, nr), queries.tops + row,
                                 queries.totals + row)
        sums = queries.sums + row * job.padded_dim
        if first and factor != 1:
            job.isa.scale(sums, job.padded_dim, factor, sums)
    for panel in range(_blocks(d, nr)):
        width = min(nr, job.padded_dim - panel * nr)
        _tiles(job.format, rows, count, queries.scores, KEYS, values + panel * nr * padded + first * width, width,
               queries.sums + panel * nr, job.padded_dim, first > 0)


cdef void _tiles(const qv_format *fmt, Py_ssize_t rows, Py_ssize_t k, const float *a, Py_ssize_t pitch,
                 const float *panel, Py_ssize_t width, float *out, Py_ssize_t out_pitch, bint add) noexcept nogil:
    """All rows with one panel."""
    cdef Py_ssize_t tile, row
    for tile in range(_blocks(rows, fmt.mr)):
        row = tile * fmt.mr
        fmt.tile(min(fmt.mr, rows - row), k, a + row * pitch, pitch, panel, width, out + row * out_pitch, out_pitch,
                 add)


cdef Py_ssize_t _pair_size(const qv_format *fmt, Py_ssize_t longest, Py_ssize_t head_dim) noexcept nogil:
    return _round_up(longest, fmt.nr) * (head_dim + _round_up(head_dim, fmt.nr // 2))


cdef Py_ssize_t _scratch_size(const qv_format *fmt, Py_ssize_t head_dim) noexcept nogil:
    """Turned queries, sums, tops, totals and scores of one worker, to a whole number of cache lines."""
    cdef Py_ssize_t rows = QUERY_TILES * fmt.mr
    return _round_up(rows * (head_dim + _round_up(head_dim, fmt.nr // 2) + 2 + KEYS), 16)


def attention_scratch(Py_ssize_t longest, Py_ssize_t pairs, Py_ssize_t head_dim):
    """Floats of scratch that `attention` wants: ``longest`` segment, ``pairs`` = segments * heads."""
    cdef const qv_format *fmt = &selected().f32
    cdef Py_ssize_t pair = _pair_size(fmt, longest, head_dim)
    cdef Py_ssize_t wave = max(1, min(pairs, PACKED // max(1, pair)))
    return wave * pair + threads() * _scratch_size(fmt, head_dim)


def attention(qkv, rope, const int32_t[::1] cu_seqlens, float[:, :] out, float[::1] scratch):
    """out = softmax(q kᵀ / sqrt(head_dim)) v by segment and head, with q and k turned by rope.

    ``qkv`` = (q, k, v): q is (n, heads, head_dim), k and v (n, kv_heads, head_dim), float32, any strides but the last;
    ``rope`` = (cos, sin), each (n, head_dim / 2); ``cu_seqlens`` (segments + 1,) int32 from 0 to n; ``out``
    (n, heads * head_dim); ``scratch`` at least `attention_scratch` floats for one pair, more is used where given.
    Formula: transformers VisionAttention and apply_rotary_pos_emb_vision; softmax: Milakov and Gimelshein,
    arXiv 1805.02867.
    """
    cdef const float[:, :, :] q = qkv[0], k = qkv[1], v = qkv[2]
    cdef const float[:, ::1] cos = rope[0], sin = rope[1]
    cdef Py_ssize_t n = q.shape[0], heads = q.shape[1], d = q.shape[2], pairs = (cu_seqlens.shape[0] - 1) * heads
    _check_shapes(q, k, v, out)
    _check_places(n, d, cos, sin, cu_seqlens)
    if n == 0:
        return out.base
    cdef Job job
    job.isa, job.format = selected(), &selected().f32
    job.q, job.k, job.v, job.out = &q[0, 0, 0], &k[0, 0, 0], &v[0, 0, 0], &out[0, 0]
    job.q_row, job.q_head, job.k_row, job.k_head = _entries(q, 0), _entries(q, 1), _entries(k, 0), _entries(k, 1)
    job.v_row, job.v_head, job.out_row = _entries(v, 0), _entries(v, 1), out.strides[0] // sizeof(float)
    job.cos, job.sin, job.cu_seqlens = &cos[0, 0], &sin[0, 0], &cu_seqlens[0]
    job.heads, job.head_dim, job.group = heads, d, heads // k.shape[1]
    job.padded_dim = _round_up(d, job.format.nr // 2)
    job.scale = <float>(LOG2_E / sqrt(<double>d))
    cdef Py_ssize_t longest = np.diff(cu_seqlens).max()
    job.pair_size, job.scratch_size = _pair_size(job.format, longest, d), _scratch_size(job.format, d)
    cdef Py_ssize_t wave = min((scratch.shape[0] - threads() * job.scratch_size) // job.pair_size, pairs)
    if wave < 1:
        raise ValueError(f"scratch has {scratch.shape[0]} floats; one pair needs {attention_scratch(longest, 1, d)}")
    job.scratch, job.packed = &scratch[0], &scratch[0] + threads() * job.scratch_size
    with nogil:
        _waves(&job, pairs, wave, longest)
    return out.base


cdef Py_ssize_t _entries(const float[:, :, :] x, int axis) noexcept:
    return x.strides[axis] // <Py_ssize_t>sizeof(float)


cdef _check_shapes(const float[:, :, :] q, const float[:, :, :] k, const float[:, :, :] v, float[:, :] out):
    cdef Py_ssize_t n = q.shape[0], heads = q.shape[1], d = q.shape[2]
    if d % 2 or not 0 < d <= MAX_HEAD_DIM:
        raise ValueError(f"head_dim is {d}; expected an even number up to {MAX_HEAD_DIM}")
    if k.shape[0] != n or v.shape[0] != n or k.shape[2] != d or v.shape[2] != d:
        raise ValueError(f"q, k and v differ in rows or head_dim: {n} x {d}, {k.shape[0]} x {k.shape[2]} and "
                         f"{v.shape[0]} x {v.shape[2]}")
    if k.shape[1] == 0 or heads % k.shape[1] or v.shape[1] != k.shape[1]:
        raise ValueError(f"{heads} query heads cannot share {k.shape[1]} key and {v.shape[1]} value heads")
    if out.shape[0] != n or out.shape[1] != heads * d:
        raise ValueError(f"out is ({out.shape[0]}, {out.shape[1]}), expected ({n}, {heads * d})")
    if n and (_entries(q, 2) != 1 or _entries(k, 2) != 1 or _entries(v, 2) != 1 or out.strides[1] != sizeof(float)):
        raise ValueError("rows must be contiguous")


cdef _check_places(Py_ssize_t n, Py_ssize_t d, const float[:, ::1] cos, const float[:, ::1] sin,
                   const int32_t[::1] cu_seqlens):
    if cos.shape[0] != n or cos.shape[1] != d // 2 or sin.shape[0] != n or sin.shape[1] != d // 2:
        raise ValueError(f"rope must be two arrays of ({n}, {d // 2})")
    if not cu_seqlens.shape[0] or cu_seqlens[0] or cu_seqlens[cu_seqlens.shape[0] - 1] != n or np.any(
            np.diff(cu_seqlens) < 0):
        raise ValueError(f"cu_seqlens must rise from 0 to {n}")


cdef void _waves(Job *job, Py_ssize_t pairs, Py_ssize_t wave, Py_ssize_t longest) noexcept nogil:
    """As many pairs at a time as the scratch holds: first their keys and values, then their queries."""
    cdef Py_ssize_t rows = QUERY_TILES * job.format.mr, count, i
    for i in range(_blocks(pairs, wave)):
        job.first_pair = i * wave
        count = min(wave, pairs - job.first_pair)
        job.blocks = _blocks(longest, job.format.nr)
        parallel_for(_pack_piece, job, count * job.blocks)
        job.blocks = _blocks(longest, rows)
        parallel_for(_query_piece, job, count * job.blocks)
