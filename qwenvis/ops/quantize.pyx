"""Rows rounded to a byte an entry, for weights in formats that multiply integers."""

import numpy as np

from qwenvis.ops.kernels cimport QV_SCRATCH
from qwenvis.ops.packed_weight cimport PackedWeight, Panels
from qwenvis.ops.runtime cimport Rows, bytes_of, ceil_div, parallel_on, rows_of, threads

cdef enum:
    ROWS = 8  # rows of a task: 10 microseconds at K = 1280

cdef struct Job:
    const Panels *panels
    Rows x, out
    float *scratch  # of the workers, k + QV_SCRATCH each


cdef void _task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t r
    for r in range(index * ROWS, min((index + 1) * ROWS, job.x.n)):
        job.panels.format.quantize(job.x.data + r * job.x.pitch * job.x.itemsize, job.x.d, job.panels.factors,
                                   job.scratch + worker * (job.panels.k + QV_SCRATCH),
                                   job.out.data + r * job.out.pitch)


cdef void quantize_rows(const Panels *panels, const Rows *x, const Rows *out, float *scratch,
                        int workers) noexcept nogil:
    """Quantise the rows of ``x`` on at most ``workers`` threads; ``scratch`` has k + QV_SCRATCH floats for each."""
    cdef Job job
    job.panels, job.x, job.out, job.scratch = panels, x[0], out[0], scratch
    parallel_on(workers, _task, &job, ceil_div(x.n, ROWS))


def quantize(x, PackedWeight weight, out):
    """Round the rows of ``x`` to the bytes that products with ``weight`` multiply; return ``out``.

    ``x`` is (m, k) of the weight's `rows_dtype`, ``out`` (m, quantized_nbytes) uint8. A row of out depends on its row
    of x and on the weight alone. `linear` takes ``out`` instead of ``x``, with the same results.
    """
    cdef Panels panels
    memory = weight.held(&panels)  # until all is done
    cdef Rows rows = rows_of(x, "x"), quantized = bytes_of(out, "out", True)
    cdef int workers = threads()
    if panels.format.quantize == NULL:
        raise ValueError("the format of the weight multiplies rows as they are")
    if rows.d != panels.k or quantized.n != rows.n or quantized.d != weight.quantized_nbytes:
        raise ValueError(f"x is {x.shape}, out {out.shape}; expected (m, {panels.k}), (m, {weight.quantized_nbytes})")
    if rows.dtype != panels.format.rows_dtype:
        raise ValueError(f"x is {x.dtype}; rows for this weight are {weight.rows_dtype}")
    if memory is None:
        raise ValueError("the weight has not been packed")
    cdef float[::1] scratch = np.empty(workers * (panels.k + QV_SCRATCH), np.float32)
    with nogil:
        quantize_rows(&panels, &rows, &quantized, &scratch[0], workers)
    return out
