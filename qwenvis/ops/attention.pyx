"""Attention over segments, with an online softmax: memory grows with the longest segment, never with its square.

For each segment and head, keys are turned by rope and packed like a weight, values are packed as its transpose; then
blocks of queries pass by. Scores S = Q Kᵀ and results O = P V are both products with the GEMM tile.
"""

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int32_t

import numpy as np

from qwenvis.ops.kernels cimport QV_F32, QV_MAX_NR, qv_format, qv_kernels, qv_kind
from qwenvis.ops.runtime cimport Rows, kind_of, parallel_for, rows_of, selected, threads

cdef extern from "prefetch.h" nogil:
    void qv_prefetch(const char *address, Py_ssize_t lines)

cdef enum:
    AHEAD = 8        # rows from the one that is turned to the one that is asked for
    QUERY_TILES = 5  # tiles of queries a task: 70 rows with the AVX-512 tile
    KEYS = 512       # keys a block: scores, keys and values of a block stay in L2
    MAX_HEAD_DIM = 256
    PACKED = 16 << 20 # bytes of packed keys and values at a time, if one head needs no more: half of an L3
    CACHE_LINE = 64

cdef double LOG2_E = 1.4426950408889634


# Queries, keys or values, (n, heads, head_dim) float32; strides in entries.
cdef struct Heads:
    const float *data
    Py_ssize_t row, head


cdef struct Job:
    const qv_kernels *isa
    const qv_format *format
    Heads q, k, v
    const float *cos
    const float *sin
    Rows out
    Py_ssize_t heads, head_dim, padded_dim, group  # group: query heads of a key head
    const int32_t *cu_seqlens
    char *packed                   # keys and values of one wave, pair after pair
    char *scratch                  # of the workers
    Py_ssize_t pair_size           # packed bytes of a pair
    Py_ssize_t scratch_size        # bytes of a worker
    Py_ssize_t first_pair, blocks  # of a wave; a pair is (segment, head), in pieces of `blocks`


# What one worker keeps of a block of queries.
cdef struct Queries:
    Py_ssize_t rows
    char *turned    # (rows, head_dim) in the format's rows
    float *sums     # (rows, padded_dim)
    float *tops     # (rows,) running maxima
    float *totals   # (rows,) running sums
    float *scores   # (rows, KEYS)
    char *weights   # (rows, KEYS) in the format's rows: 2^(scores - tops); the scores themselves in float32


cdef inline Py_ssize_t _blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    return (n + size - 1) // size


cdef inline Py_ssize_t _round_up(Py_ssize_t n, Py_ssize_t unit) noexcept nogil:
    return _blocks(n, unit) * unit


cdef const float *_head(const Heads *x, Py_ssize_t row, Py_ssize_t head) noexcept nogil:
    return x.data + row * x.row + head * x.head


cdef void _turn(const Job *job, const float *x, Py_ssize_t row, float scale, void *out, qv_kind kind) noexcept nogil:
    """One head of one row, turned by rope."""
    cdef Py_ssize_t half = job.head_dim // 2
    job.isa.rope(x, job.cos + row * half, job.sin + row * half, half, scale, out, kind)


cdef void _ask_for(const Heads *x, Py_ssize_t row, Py_ssize_t head, Py_ssize_t head_dim) noexcept nogil:
    """Fetch a row that will be turned soon: rows lie pages apart, which no hardware foresees."""
    qv_prefetch(<const char *>_head(x, row, head), _blocks(head_dim * sizeof(float), CACHE_LINE))


cdef void _pack_piece(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """Keys of one panel of one pair, turned by rope; and their values."""
    cdef const Job *job = <const Job *>context
    cdef const qv_format *fmt = job.format
    cdef Py_ssize_t nr = fmt.nr, d = job.head_dim, pair = job.first_pair + index // job.blocks
    cdef Py_ssize_t segment = pair // job.heads, head = pair % job.heads // job.group
    cdef Py_ssize_t start = job.cu_seqlens[segment], n = job.cu_seqlens[segment + 1] - start
    cdef Py_ssize_t first = index % job.blocks * nr, row, panel, width
    cdef Py_ssize_t count = min(nr, n - first), padded = _round_up(n, nr)
    cdef float turned[QV_MAX_NR * MAX_HEAD_DIM]
    cdef char *keys = job.packed + index // job.blocks * job.pair_size
    cdef char *values = keys + padded * d * fmt.itemsize
    if count <= 0:
        return
    for row in range(count):
        _ask_for(&job.k, start + first + row + AHEAD, head, d)
        _turn(job, _head(&job.k, start + first + row, head), start + first + row, 1, turned + row * d, QV_F32)
    fmt.pack(turned, d, count, d, keys + first * d * fmt.itemsize, nr, nr)
    for panel in range(_blocks(d, nr)):
        width = min(nr, job.padded_dim - panel * nr)
        fmt.pack_transposed(_head(&job.v, start + first, head) + panel * nr, job.v.row, min(nr, d - panel * nr), count,
                            values + (panel * nr * padded + first * width) * fmt.itemsize, width)


cdef void _query_piece(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """One block of queries of one pair."""
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t d = job.head_dim, most = QUERY_TILES * job.format.mr
    cdef Py_ssize_t pair = job.first_pair + index // job.blocks, segment = pair // job.heads, head = pair % job.heads
    cdef Py_ssize_t start = job.cu_seqlens[segment], n = job.cu_seqlens[segment + 1] - start
    cdef Py_ssize_t first = index % job.blocks * most, row, block
    cdef float scale = <float>(LOG2_E / sqrt(<double>d))  # here, in the floating-point mode of a piece
    cdef Queries queries
    queries.rows = min(most, n - first)
    if queries.rows <= 0:
        return
    _lay_out(job, job.scratch + worker * job.scratch_size, &queries)
    for row in range(queries.rows):
        _ask_for(&job.q, start + first + row + AHEAD, head, d)
        _turn(job, _head(&job.q, start + first + row, head), start + first + row, scale,
              queries.turned + row * d * _row_itemsize(job.format), job.format.rows)
        queries.tops[row], queries.totals[row] = -INFINITY, 0
    for block in range(_blocks(n, KEYS)):
        _attend(job, &queries, job.packed + index // job.blocks * job.pair_size, n, block * KEYS)
    for row in range(queries.rows):
        job.isa.scale(queries.sums + row * job.padded_dim, d, 1 / queries.totals[row],
                      job.out.data + ((start + first + row) * job.out.pitch + head * d) * job.out.itemsize,
                      job.out.kind)


cdef void _attend(const Job *job, const Queries *queries, const char *keys, Py_ssize_t n,
                  Py_ssize_t first) noexcept nogil:
    """One block of keys, from ``first``: sums += 2^(S - tops) V and totals += 2^(S - tops), rescaled as tops rise."""
    cdef Py_ssize_t nr = job.format.nr, count = min(KEYS, n - first), padded = _round_up(n, nr), row
    cdef Py_ssize_t itemsize = _row_itemsize(job.format)
    cdef float *sums
    cdef float factor
    _multiply_keys(job, queries, keys + first * job.head_dim * job.format.itemsize, count)
    for row in range(queries.rows):
        factor = job.isa.softmax(queries.scores + row * KEYS, count, _round_up(count, nr), queries.tops + row,
                                 queries.totals + row, queries.weights + row * KEYS * itemsize, job.format.rows)
        sums = queries.sums + row * job.padded_dim
        if first and factor != 1:
            job.isa.scale(sums, job.padded_dim, factor, sums, QV_F32)
    _add_values(job, queries, keys + padded * job.head_dim * job.format.itemsize, padded, first, count)


cdef void _multiply_keys(const Job *job, const Queries *queries, const char *keys, Py_ssize_t count) noexcept nogil:
    """scores = Q Kᵀ for ``count`` keys."""
    cdef const qv_format *fmt = job.format
    cdef Py_ssize_t d = job.head_dim, panel, tile, row
    for panel in range(_blocks(count, fmt.nr)):
        for tile in range(_blocks(queries.rows, fmt.mr)):
            row = tile * fmt.mr
            fmt.tile(min(fmt.mr, queries.rows - row), d, queries.turned + row * d * _row_itemsize(fmt), d,
                     keys + panel * fmt.nr * d * fmt.itemsize, fmt.nr, queries.scores + row * KEYS + panel * fmt.nr,
                     KEYS, False)


cdef void _add_values(const Job *job, const Queries *queries, const char *values, Py_ssize_t keys, Py_ssize_t first,
                      Py_ssize_t count) noexcept nogil:
    """sums += weights V for ``count`` of all ``keys`` from ``first``; the first block begins them."""
    cdef const qv_format *fmt = job.format
    cdef Py_ssize_t panel, column, width, tile, row
    for panel in range(_blocks(job.head_dim, fmt.nr)):
        column = panel * fmt.nr
        width = min(<Py_ssize_t>fmt.nr, job.padded_dim - column)
        for tile in range(_blocks(queries.rows, fmt.mr)):
            row = tile * fmt.mr
            fmt.tile(min(fmt.mr, queries.rows - row), count, queries.weights + row * KEYS * _row_itemsize(fmt), KEYS,
                     values + (column * keys + first * width) * fmt.itemsize, width,
                     queries.sums + row * job.padded_dim + column, job.padded_dim, first > 0)


cdef inline Py_ssize_t _row_itemsize(const qv_format *fmt) noexcept nogil:
    return 4 if fmt.rows == QV_F32 else 2


cdef Py_ssize_t _lay_out(const Job *job, char *scratch, Queries *queries) noexcept nogil:
    """Give a worker's arrays their places in its scratch; returns the bytes that they take, in whole cache lines."""
    cdef Py_ssize_t rows = QUERY_TILES * job.format.mr
    queries.scores = <float *>scratch
    queries.sums = queries.scores + rows * KEYS
    queries.tops = queries.sums + rows * job.padded_dim
    queries.totals = queries.tops + rows
    queries.turned = <char *>(queries.totals + rows)
    queries.weights = queries.turned + rows * job.head_dim * _row_itemsize(job.format)
    if job.format.rows == QV_F32:
        queries.weights = <char *>queries.scores
        return _round_up(queries.turned - scratch + rows * job.head_dim * 4, CACHE_LINE)
    return _round_up(queries.weights - scratch + rows * KEYS * 2, CACHE_LINE)


cdef void _plan(Job *job, Py_ssize_t heads, Py_ssize_t head_dim, Py_ssize_t longest, str format) except *:
    """Sizes that follow from the format; one that has to be expanded gains nothing here, so f32 stands in for it."""
    cdef Queries queries
    job.isa = selected()
    job.format = &job.isa.formats[<int>kind_of(format)]
    if job.format.expand != NULL:
        job.format = &job.isa.formats[<int>QV_F32]
    job.heads, job.head_dim, job.padded_dim = heads, head_dim, _round_up(head_dim, job.format.nr // 2)
    job.pair_size = _round_up(longest, job.format.nr) * (head_dim + job.padded_dim) * job.format.itemsize
    job.scratch_size = _lay_out(job, NULL, &queries)


def attention_scratch(Py_ssize_t longest, Py_ssize_t pairs, Py_ssize_t head_dim, str format="f32"):
    """Floats of scratch that `attention` wants: ``longest`` segment, ``pairs`` = segments * heads."""
    cdef Job job
    _plan(&job, 1, head_dim, longest, format)
    cdef Py_ssize_t wave = max(1, min(pairs, PACKED // max(1, job.pair_size)))
    return (wave * job.pair_size + threads() * job.scratch_size) // 4


def attention(qkv, rope, const int32_t[::1] cu_seqlens, out, float[::1] scratch, *, str format="f32"):
    """out = softmax(q kᵀ / sqrt(head_dim)) v by segment and head, with q and k turned by rope.

    ``qkv`` = (q, k, v): q is (n, heads, head_dim), k and v (n, kv_heads, head_dim), float32, any strides but the last;
    ``rope`` = (cos, sin), each (n, head_dim / 2); ``cu_seqlens`` (segments + 1,) int32 from 0 to n; ``out``
    (n, heads * head_dim) float32, or bfloat16 in uint16; ``scratch`` at least `attention_scratch` floats for one pair,
    more is used where given. ``format`` is what turned queries and keys, values and softmax weights are rounded to,
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
        _waves(&job, pairs, wave, longest)
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
