"""Rows gathered by index: the permutations into and out of window order."""

from libc.stdint cimport int64_t

from qwenvis.ops.kernels cimport qv_kernels
from qwenvis.ops.runtime cimport Rows, ceil_div, parallel_for, rows_of, selected

cdef enum:
    ROWS = 64  # rows of a task

cdef struct Job:
    const qv_kernels *isa
    const char *x
    const int64_t *index
    Rows out
    Py_ssize_t parts, size                # parts of a row, entries of a part
    Py_ssize_t x_row, x_part              # strides in bytes


cdef void _task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t r, p
    for r in range(index * ROWS, min((index + 1) * ROWS, job.out.n)):
        for p in range(job.parts):
            job.isa.copy(<const float *>(job.x + job.index[r] * job.x_row + p * job.x_part), job.size,
                         job.out.data + (r * job.out.pitch + p * job.size) * job.out.itemsize, job.out.dtype)


def gather(x, const int64_t[::1] index, out):
    """Compute out[r] = x[index[r]]; return ``out``.

    ``x`` is float32, (n, d), or (n, parts, d / parts) if the parts of a row are not contiguous; ``out`` (rows, d)
    float32, or bfloat16 in uint16.
    """
    cdef const float[:, :, :] source = x if x.ndim == 3 else x[:, None]
    cdef Job job
    job.isa, job.out, job.parts, job.size = selected(), rows_of(out, "out", True), source.shape[1], source.shape[2]
    cdef Py_ssize_t r
    if job.out.n != index.shape[0] or job.out.d != job.parts * job.size:
        raise ValueError(f"out is {out.shape}; {index.shape[0]} rows of {x.shape} are gathered")
    for r in range(index.shape[0]):
        if not 0 <= index[r] < source.shape[0]:
            raise ValueError(f"index {index[r]} is outside {source.shape[0]} rows")
    if job.out.n == 0 or job.out.d == 0:
        return out
    if source.strides[2] != sizeof(float):
        raise ValueError("rows must be contiguous")
    job.x, job.x_row, job.x_part = <const char *>&source[0, 0, 0], source.strides[0], source.strides[1]
    job.index = &index[0]
    with nogil:
        parallel_for(_task, &job, ceil_div(job.out.n, ROWS))
    return out
