"""The search for NaN and infinity, at the speed of memory: `numpy.isfinite` would fill an array of flags."""

from qwenvis.ops.kernels cimport qv_kernels
from qwenvis.ops.runtime cimport Rows, ceil_div, parallel_for, rows_of, selected

cdef enum:
    ROWS = 64  # rows of a task: some 10 us of reading at 1280 columns

cdef struct Job:
    const qv_kernels *isa
    Rows x
    int *finite


cdef void _task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t row
    for row in range(index * ROWS, min((index + 1) * ROWS, job.x.n)):
        if not job.isa.all_finite(job.x.data + row * job.x.pitch * job.x.itemsize, job.x.d, job.x.dtype):
            lower(job.finite)
            return


def all_finite(x):
    """Return whether every entry of ``x`` is finite: (n, d) float32, or bfloat16 in uint16."""
    cdef int finite = True
    cdef Job job
    job.isa, job.x, job.finite = selected(), rows_of(x, "x"), &finite
    with nogil:
        parallel_for(_task, &job, ceil_div(job.x.n, ROWS))
    return bool(finite)
