"""One pair of a segment and a head: its keys and values packed, then its queries, block by block."""

from libc.math cimport INFINITY, sqrt, sqrtf
from libc.string cimport memset

from qwenvis.ops.kernels cimport QV_F32, QV_MAX_MR, qv_dtype, qv_format, qv_itemsize
from qwenvis.ops.runtime cimport CACHE_LINE, ceil_div, prefetch, round_up

cdef enum:
    AHEAD = 8  # rows from the rotated row to the prefetched row

cdef double LOG2_E = 1.4426950408889634

# Of fixed tops, in units of log 2: weights are at most 2^MOST, so that sums of 2^17 of them, times values up to 2^45,
# are finite. A sum of weights is at least LEAST, beside which weights that vanish below 2^-126 do not count. Where
# scores are bounded by more than FARTHEST, all of a query may lie too far below its top.
cdef float MOST = 64, LEAST = 2.0 ** -80, FARTHEST = 160


# What one worker keeps of a block of queries; scores and weights are of one tile.
cdef struct Queries:
    Py_ssize_t rows
    char *rotated   # (rows, head_dim) in the format's rows
    float *sums     # (rows, padded_dim)
    bint fixed      # tops are fixed, else running maxima
    float *tops     # (rows,); until tops are fixed, the squared lengths of the queries
    float *totals   # (rows,) running sums of the weights; if fixed, (rows, nr / 2), to be added up
    float *scores   # (mr, KEYS)
    char *weights   # (mr, KEYS) in the format's rows: 2^(scores - tops); the scores themselves in float32


cdef const float *_head(const Heads *x, Py_ssize_t row, Py_ssize_t head) noexcept nogil:
    return x.data + row * x.row + head * x.head


cdef float _rotate(const Job *job, const float *x, Py_ssize_t row, float scale, void *out,
                   qv_dtype dtype) noexcept nogil:
    """Rotate one head of one row by rope, and store it in ``dtype``; return its squared length, or up to twice that."""
    cdef Py_ssize_t half = job.head_dim // 2
    return job.isa.rope(x, job.cos + row * half, job.sin + row * half, half, scale, out, dtype)


cdef void prefetch_rows(const Heads *x, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t head, Py_ssize_t d) noexcept nogil:
    """Prefetch rows that are needed soon: they lie pages apart, so the hardware does not prefetch them."""
    cdef Py_ssize_t r
    for r in range(row, row + rows):
        prefetch(<const char *>_head(x, r, head), ceil_div(d * sizeof(float), CACHE_LINE))


cdef Pair pair_of(const Job *job, Py_ssize_t index, char *packed) noexcept nogil:
    """Return the pair with this index, whose keys and values are packed at ``packed``."""
    cdef Pair pair
    cdef Py_ssize_t segment = index // job.heads
    pair.head = index % job.heads
    pair.start = job.cu_seqlens[segment]
    pair.n = job.cu_seqlens[segment + 1] - pair.start
    pair.keys = packed
    pair.values = packed + round_up(pair.n, job.format.nr) * job.head_dim * job.format.itemsize
    pair.squares = <float *>(pair.values + round_up(pair.n, job.format.nr) * job.padded_dim * job.format.itemsize)
    return pair


cdef Py_ssize_t pair_size(const Job *job, Py_ssize_t n) noexcept nogil:
    """Return the packed bytes of a pair with ``n`` keys, in whole cache lines."""
    cdef Py_ssize_t panels = ceil_div(n, job.format.nr)
    return round_up(panels * (job.format.nr * (job.head_dim + job.padded_dim) * job.format.itemsize + sizeof(float)),
                    CACHE_LINE)


cdef void pack_keys_values(const Job *job, const Pair *pair, Py_ssize_t block, char *scratch) noexcept nogil:
    """Pack the keys of one panel, rotated by rope, and their values."""
    cdef const qv_format *fmt = job.format
    cdef Py_ssize_t nr = fmt.nr, d = job.head_dim, head = pair.head // job.group
    cdef Py_ssize_t first = block * nr, count = min(nr, pair.n - first), row, panel, width
    cdef Py_ssize_t size = d * qv_itemsize(fmt.source_dtype)
    cdef float square, longest = 0  # squared lengths of keys; NaN is left out, and shows in the scores
    prefetch_rows(&job.k, pair.start + first, AHEAD, head, d)
    for row in range(pair.start + first, pair.start + first + count):
        prefetch_rows(&job.k, row + AHEAD, 1, head, d)
        prefetch_rows(&job.v, row, 1, head, d)
        square = _rotate(job, _head(&job.k, row, head), row, 1, scratch + (row - pair.start - first) * size,
                         fmt.source_dtype)
        longest = max(longest, square)
    if count > 0:
        pair.squares[block] = longest
        fmt.pack(scratch, d, count, d, NULL, pair.keys + first * d * fmt.itemsize, nr, nr)
    for panel in range(ceil_div(d, nr) if count > 0 else 0):
        width = min(nr, job.padded_dim - panel * nr)
        fmt.pack_transposed(_head(&job.v, pair.start + first, head) + panel * nr, job.v.row, min(nr, d - panel * nr),
                            count, pair.values + (panel * nr * round_up(pair.n, nr) + first * width) * fmt.itemsize,
                            width)


cdef void attend_queries(const Job *job, const Pair *pair, Py_ssize_t block, char *scratch) noexcept nogil:
    """Attend with one block of queries to all keys."""
    cdef Py_ssize_t d = job.head_dim, most = QUERY_TILES * job.format.mr, start = pair.start + block * most, row
    cdef Queries queries
    queries.rows = max(0, min(most, pair.n - block * most))
    _lay_out(job, scratch, &queries)
    _rotate_queries(job, pair, start, &queries)
    if not (_fix_tops(job, pair, &queries) and _attend_fixed(job, pair, &queries)):
        _attend_online(job, pair, &queries)
    for row in range(queries.rows):
        prefetch(_place(job, pair, start + row + AHEAD), ceil_div(d * job.out.itemsize, CACHE_LINE) + 1)
        job.isa.scale(queries.sums + row * job.padded_dim, d, 1 / queries.totals[row], _place(job, pair, start + row),
                      job.out.dtype)


cdef void _rotate_queries(const Job *job, const Pair *pair, Py_ssize_t start, Queries *queries) noexcept nogil:
    """Rotate the queries from ``start`` on by rope, in units of log 2, and leave their squared lengths in tops."""
    cdef Py_ssize_t size = job.head_dim * qv_itemsize(job.format.rows_dtype), row
    cdef float scale = <float>(LOG2_E / sqrt(<double>job.head_dim))  # here, in the floating-point mode of a task
    prefetch_rows(&job.q, start, AHEAD, pair.head, job.head_dim)
    for row in range(queries.rows):
        prefetch_rows(&job.q, start + row + AHEAD, 1, pair.head, job.head_dim)
        queries.tops[row] = _rotate(job, _head(&job.q, start + row, pair.head), start + row, scale,
                                    queries.rotated + row * size, job.format.rows_dtype)


cdef bint _fix_tops(const Job *job, const Pair *pair, Queries *queries) noexcept nogil:
    """Turn squared lengths into tops that no score exceeds by more than MOST; return whether lengths are small enough.

    By Cauchy and Schwarz, no score exceeds the length of its query times that of the longest key.
    """
    cdef float longest = 0, bound
    cdef Py_ssize_t panel, row
    for panel in range(ceil_div(pair.n, job.format.nr)):
        longest = max(longest, pair.squares[panel])
    for row in range(queries.rows):
        bound = sqrtf(queries.tops[row] * longest)
        if not bound <= FARTHEST:
            return False
        queries.tops[row] = max(<float>0, bound - MOST)
    return True


cdef bint _attend_fixed(const Job *job, const Pair *pair, Queries *queries) noexcept nogil:
    """Attend under fixed tops; return whether every query has weights that are large enough."""
    cdef Py_ssize_t lanes = job.format.nr // 2, row
    cdef bint enough = True
    queries.fixed = True
    memset(queries.totals, 0, queries.rows * lanes * sizeof(float))
    _attend_keys(job, pair, queries)
    for row in range(queries.rows):
        queries.totals[row] = job.isa.sum(queries.totals + row * lanes, lanes)
        enough &= queries.totals[row] >= LEAST
    return enough


cdef void _attend_online(const Job *job, const Pair *pair, Queries *queries) noexcept nogil:
    """Attend under running maxima."""
    cdef Py_ssize_t row
    queries.fixed = False
    for row in range(queries.rows):
        queries.tops[row], queries.totals[row] = -INFINITY, 0
    _attend_keys(job, pair, queries)


cdef void _attend_keys(const Job *job, const Pair *pair, const Queries *queries) noexcept nogil:
    """Attend to all keys: sums = 2^(S - tops) V and totals = 2^(S - tops)."""
    cdef Py_ssize_t key, tile
    for key in range(ceil_div(pair.n, KEYS)):
        for tile in range(ceil_div(queries.rows, job.format.mr)):
            _attend_tile(job, pair, queries, tile * job.format.mr, key * KEYS)


cdef char *_place(const Job *job, const Pair *pair, Py_ssize_t row) noexcept nogil:
    """Return the place of the result of a query."""
    return job.out.data + (row * job.out.pitch + pair.head * job.head_dim) * job.out.itemsize


cdef void _attend_tile(const Job *job, const Pair *pair, const Queries *queries, Py_ssize_t row,
                       Py_ssize_t first) noexcept nogil:
    """Attend with a tile of queries, from ``row`` on, to a block of keys, from ``first`` on.

    sums += 2^(S - tops) V and totals += 2^(S - tops), rescaled as tops rise.
    """
    cdef Py_ssize_t rows = min(<Py_ssize_t>job.format.mr, queries.rows - row), count = min(KEYS, pair.n - first)
    cdef float *sums = queries.sums + row * job.padded_dim
    _multiply_keys(job, queries.rotated + row * job.head_dim * qv_itemsize(job.format.rows_dtype), rows,
                   pair.keys + first * job.head_dim * job.format.itemsize, count, queries.scores)
    if queries.fixed:
        job.isa.powers(queries.scores, KEYS, rows, count, queries.tops + row,
                       queries.totals + row * (job.format.nr // 2), queries.weights, job.format.rows_dtype)
    else:
        _weigh_online(job, queries, row, rows, count, first > 0)
    _add_values(job, queries.weights, rows, pair, first, sums)


cdef void _weigh_online(const Job *job, const Queries *queries, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t count,
                        bint rescale) noexcept nogil:
    """Turn a tile of scores into weights, and rescale the sums of queries whose running maximum rose."""
    cdef float factors[QV_MAX_MR]
    cdef float *sums = queries.sums + row * job.padded_dim
    cdef Py_ssize_t r
    job.isa.softmax(queries.scores, KEYS, rows, count, queries.tops + row, queries.totals + row, factors,
                    queries.weights, job.format.rows_dtype)
    for r in range(rows if rescale else 0):
        if factors[r] != 1:
            job.isa.scale(sums + r * job.padded_dim, job.padded_dim, factors[r], sums + r * job.padded_dim, QV_F32)


cdef void _multiply_keys(const Job *job, const char *rotated, Py_ssize_t rows, const char *keys, Py_ssize_t count,
                         float *scores) noexcept nogil:
    """Compute scores = Q Kᵀ for ``count`` keys."""
    cdef const qv_format *fmt = job.format
    cdef Py_ssize_t d = job.head_dim, nr = fmt.nr, panel
    for panel in range(ceil_div(count, nr)):
        fmt.tile(rows, d, rotated, d, keys + panel * nr * d * fmt.itemsize, nr, scores + panel * nr, KEYS, False)


cdef void _add_values(const Job *job, const char *weights, Py_ssize_t rows, const Pair *pair, Py_ssize_t first,
                      float *sums) noexcept nogil:
    """Compute sums += weights V for the block of keys from ``first`` on; the first block sets the sums."""
    cdef const qv_format *fmt = job.format
    cdef Py_ssize_t panel, column, width, count = min(KEYS, pair.n - first), keys = round_up(pair.n, fmt.nr)
    for panel in range(ceil_div(job.head_dim, fmt.nr)):
        column = panel * fmt.nr
        width = min(<Py_ssize_t>fmt.nr, job.padded_dim - column)
        fmt.tile(rows, count, weights, KEYS, pair.values + (column * keys + first * width) * fmt.itemsize, width,
                 sums + column, job.padded_dim, first > 0)


cdef Py_ssize_t _lay_out(const Job *job, char *scratch, Queries *queries) noexcept nogil:
    """Place the arrays of a worker in its scratch; return their bytes, in whole cache lines."""
    cdef Py_ssize_t mr = job.format.mr, rows = QUERY_TILES * mr, itemsize = qv_itemsize(job.format.rows_dtype)
    cdef char *end
    queries.scores = <float *>scratch
    queries.sums = queries.scores + mr * KEYS
    queries.tops = queries.sums + rows * job.padded_dim
    queries.totals = queries.tops + rows
    queries.rotated = <char *>(queries.totals + rows * (job.format.nr // 2))
    queries.weights = queries.rotated + rows * job.head_dim * itemsize
    end = queries.weights + mr * KEYS * itemsize
    if job.format.rows_dtype == QV_F32:
        queries.weights, end = <char *>queries.scores, queries.weights
    return round_up(end - scratch, CACHE_LINE)


cdef Py_ssize_t scratch_size(const Job *job) noexcept nogil:
    """Return the scratch bytes of a worker, which `attend_queries` and `pack_keys_values` use in turn."""
    cdef Queries queries
    cdef Py_ssize_t rotated = job.format.nr * job.head_dim * qv_itemsize(job.format.source_dtype)
    return max(_lay_out(job, NULL, &queries), round_up(rotated, CACHE_LINE))
