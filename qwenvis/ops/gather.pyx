"""Rows by index: the permutations into and out of window order."""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from qwenvis.ops.runtime cimport parallel_for

cdef enum:
    ROWS = 64  # rows a piece

cdef struct Job:
    const char *x
    const int64_t *index
    char *out
    Py_ssize_t n, parts, size
    Py_ssize_t x_row, x_part, out_row, out_part  # strides in bytes


cdef void _piece(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t r, p
    for r in range(index * ROWS, min((index + 1) * ROWS, job.n)):
        for p in range(job.parts):
            memcpy(job.out + r * job.out_row + p * job.out_part,
                   job.x + job.index[r] * job.x_row + p * job.x_part, job.size)


def gather(x, const int64_t[::1] index, out):
    """out[r] = x[index[r]], by row.

    ``x`` is (n, d), or (n, parts, d) where each row is several runs; ``out`` has its shape but for the rows. float32.
    """
    cdef const float[:, :, :] source = x if x.ndim == 3 else x[:, None]
    cdef float[:, :, :] target = out if out.ndim == 3 else out[:, None]
    cdef Py_ssize_t n = index.shape[0], r
    if target.shape[0] != n or target.shape[1] != source.shape[1] or target.shape[2] != source.shape[2]:
        raise ValueError(f"out is {out.shape}; {n} rows of {x.shape} are gathered")
    for r in range(n):
        if not 0 <= index[r] < source.shape[0]:
            raise ValueError(f"index {index[r]} is outside of {source.shape[0]} rows")
    if n == 0:
        return out
    if source.strides[2] != sizeof(float) or target.strides[2] != sizeof(float):
        raise ValueError("rows must be contiguous")
    cdef Job job = Job(<const char *>&source[0, 0, 0], &index[0], <char *>&target[0, 0, 0], n, source.shape[1],
                       source.shape[2] * sizeof(float), source.strides[0], source.strides[1], target.strides[0],
                       target.strides[1])
    with nogil:
        parallel_for(_piece, &job, (n + ROWS - 1) // ROWS)
    return out
