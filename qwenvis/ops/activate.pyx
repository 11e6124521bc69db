"""Activations of an array that is not the result of a product."""

from libc.math cimport INFINITY

from qwenvis.ops.kernels cimport QV_MAX_NR, qv_kernels
from qwenvis.ops.linear import ACTIVATIONS
from qwenvis.ops.runtime cimport Rows, ceil_div, parallel_for, rows_of, selected

cdef enum:
    ROWS = 32  # rows of a task

cdef struct Job:
    const qv_kernels *isa
    Rows x, out
    int activation
    bint gated
    float limit


cdef inline float _clamped(float x, float low, float high) noexcept nogil:
    if low <= x <= high or x != x:
        return x
    return (low if x < low else high) + (x - x)  # infinity becomes NaN instead of a limit


cdef void _task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """Activate tile by tile, each of one row, as the epilogue of a product would hold it."""
    cdef const Job *job = <const Job *>context
    cdef float tile[QV_MAX_NR]
    cdef float zeros[QV_MAX_NR]
    cdef Py_ssize_t width = QV_MAX_NR, step = width // 2 if job.gated else width
    cdef Py_ssize_t row, part, column, count, i
    cdef const float *x
    for i in range(width):
        tile[i] = zeros[i] = 0
    for row in range(index * ROWS, min((index + 1) * ROWS, job.x.n)):
        for part in range(ceil_div(job.out.d, step)):
            column = part * step
            count = min(step, job.out.d - column)
            x = <const float *>job.x.data + row * job.x.pitch + column
            for i in range(count):
                tile[i] = _clamped(x[i], -INFINITY, job.limit)
            if job.gated:
                for i in range(count):
                    tile[step + i] = _clamped(x[job.out.d + i], -job.limit, job.limit)
            job.isa.finish[job.activation](
                tile, 1, width, zeros, job.out.data + (row * job.out.pitch + column) * job.out.itemsize, job.out.pitch,
                count, job.out.dtype, False)


def activate(x, out, *, str activation, float limit=INFINITY):
    """Compute out = activation(min(x, limit)), entry by entry; return ``out``.

    ``x`` is (n, d) float32, ``out`` (n, d) float32, or bfloat16 in uint16. For "silu_gate", x is (n, 2 d), gate and up
    side by side: out = silu(min(gate, limit)) * max(-limit, min(up, limit)).
    Formula: transformers Glm5NextVisionMLP, with its ``swiglu_limit``.
    """
    cdef Job job
    job.isa, job.x, job.out, job.limit = selected(), rows_of(x, "x"), rows_of(out, "out", True), limit
    job.gated = activation == "silu_gate"
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; expected {', '.join(ACTIVATIONS)}")
    if x.dtype != "float32":
        raise ValueError(f"x is {x.dtype}, expected float32")
    if job.x.n != job.out.n or job.x.d != (2 if job.gated else 1) * job.out.d:
        raise ValueError(f"x is {x.shape}, out {out.shape}")
    job.activation = ACTIVATIONS.index(activation)
    with nogil:
        parallel_for(_task, &job, ceil_div(job.x.n, ROWS))
    return out
