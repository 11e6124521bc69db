"""Interpolation of a learned grid of position embeddings: weighted sums of its rows."""

from libc.stdint cimport int32_t

from qwenvis.ops.runtime cimport Rows, ceil_div, parallel_for, rows_of

cdef enum:
    ROWS = 32     # rows of a task
    COLUMNS = 64  # sums that stay in registers and L1 while the grid's rows pass by

# The grid's places along one axis for each row, and their weights: (n, taps) each.
cdef struct Interpolation:
    const int32_t *index
    const float *weight


cdef struct Job:
    const float *grid
    Py_ssize_t side, d   # of the grid's second axis, of one place
    Interpolation y, x
    Py_ssize_t taps
    Rows out


cdef void _task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t r, part, column, c
    cdef float sums[COLUMNS]
    cdef float *out
    for r in range(index * ROWS, min((index + 1) * ROWS, job.out.n)):
        for part in range(ceil_div(job.d, COLUMNS)):
            column = part * COLUMNS
            _weighted_sum(job, r, column, min(<Py_ssize_t>COLUMNS, job.d - column), sums)
            out = <float *>job.out.data + r * job.out.pitch + column
            for c in range(min(<Py_ssize_t>COLUMNS, job.d - column)):
                out[c] += sums[c]


cdef inline void _weighted_sum(const Job *job, Py_ssize_t r, Py_ssize_t column, Py_ssize_t count,
                               float *sums) noexcept nogil:
    """Sum ``count`` columns of the interpolated row r, from ``column`` on, in the order of the taps."""
    cdef Py_ssize_t a, b, c
    cdef const float *place
    cdef float weight
    for c in range(count):
        sums[c] = 0
    for a in range(r * job.taps, (r + 1) * job.taps):
        for b in range(r * job.taps, (r + 1) * job.taps):
            weight = job.y.weight[a] * job.x.weight[b]
            place = job.grid + (job.y.index[a] * job.side + job.x.index[b]) * job.d + column
            for c in range(count):
                sums[c] += weight * place[c]


def add_interpolated(const float[:, :, ::1] grid, y, x, out):
    """Compute out[r] += sum over a and b of wy[r, a] * wx[r, b] * grid[iy[r, a], ix[r, b]]; return ``out``.

    ``grid`` is (height, width, d) float32, ``out`` (n, d) float32; ``y`` = (iy, wy) and ``x`` = (ix, wx) are (n, taps)
    each, int32 and float32. The sum is computed first and then added.
    Formula: torch.nn.functional.interpolate, with the indices and weights that the caller gives.
    """
    cdef Job job
    job.out, job.side, job.d = rows_of(out, "out", True), grid.shape[1], grid.shape[2]
    if out.dtype != "float32" or job.out.d != job.d:
        raise ValueError(f"out is {out.dtype} {out.shape}; expected float32 with {job.d} columns")
    job.taps = y[0].shape[1]
    job.y = _interpolation(y, job.out.n, job.taps, grid.shape[0])
    job.x = _interpolation(x, job.out.n, job.taps, grid.shape[1])
    if job.out.n == 0 or job.d == 0:
        return out
    job.grid = &grid[0, 0, 0]
    with nogil:
        parallel_for(_task, &job, ceil_div(job.out.n, ROWS))
    return out


cdef Interpolation _interpolation(pair, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t size) except *:
    """Check the indices and weights along an axis of ``size`` places."""
    cdef const int32_t[:, ::1] index = pair[0]
    cdef const float[:, ::1] weight = pair[1]
    cdef Py_ssize_t r, t
    if index.shape[0] != n or weight.shape[0] != n or index.shape[1] != taps or weight.shape[1] != taps:
        raise ValueError(f"index is {pair[0].shape} and weight {pair[1].shape}; expected ({n}, {taps})")
    for r in range(n):
        for t in range(taps):
            if not 0 <= index[r, t] < size:
                raise ValueError(f"index {index[r, t]} is outside {size} places")
    return Interpolation(&index[0, 0], &weight[0, 0]) if n and taps else Interpolation(NULL, NULL)
