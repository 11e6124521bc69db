"""Resampling of an image along one axis, in fixed point: bytes to bytes, row by row."""

from libc.stdint cimport int32_t, uint8_t

from qwenvis.ops.kernels cimport qv_kernels, qv_resampling
from qwenvis.ops.runtime cimport parallel_for, selected

MAX_PRECISION = 22  # bits after the point of weights below 2^15; sums of 255 times weights still fit int32

cdef struct Job:
    const qv_kernels *isa
    const uint8_t *x
    uint8_t *out
    Py_ssize_t width, bytes     # of a row of x, of a row of out
    qv_resampling resampling


cdef void _row(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    job.isa.resample_row(job.x + index * job.width * 3, job.width, &job.resampling, job.out + index * job.bytes)


cdef void _column(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    job.isa.resample_column(job.x, job.bytes, &job.resampling, index, job.out + index * job.bytes)


cdef qv_resampling _checked(const int32_t[::1] starts, const int32_t[:, ::1] weights, int precision,
                            Py_ssize_t length) except *:
    """Check that the resampling of an axis of ``length`` reads nothing outside of it."""
    cdef Py_ssize_t n = starts.shape[0], taps = weights.shape[1], i
    if n < 1 or weights.shape[0] != n or not 1 <= taps <= length or not 1 <= precision <= MAX_PRECISION:
        raise ValueError(f"{n} starts, weights ({weights.shape[0]}, {taps}) and precision {precision} do not resample "
                         f"an axis of {length}")
    for i in range(n):
        if not 0 <= starts[i] <= length - taps:
            raise ValueError(f"start {i} is {starts[i]}; expected 0 to {length - taps}")
    return qv_resampling(&starts[0], &weights[0, 0], taps, n, precision)


def resample_rows(const uint8_t[:, :, ::1] x, const int32_t[::1] starts, const int32_t[:, ::1] weights, int precision,
                  uint8_t[:, :, ::1] out):
    """Compute out[y, i] = Σ_k weights[i, k] x[y, starts[i] + k] / 2^precision, rounded half up, between 0 and 255.

    ``x`` is (height, width, 3), ``out`` (height, n, 3), ``starts`` (n,), ``weights`` (n, taps).
    """
    cdef qv_resampling resampling = _checked(starts, weights, precision, x.shape[1])
    if x.shape[2] != 3 or out.shape[0] != x.shape[0] or out.shape[1] != resampling.n or out.shape[2] != 3:
        raise ValueError(f"x is {tuple(x.shape)[:3]}, out {tuple(out.shape)[:3]} for {resampling.n} columns")
    if x.shape[0] == 0:
        return out.base
    cdef Job job = Job(selected(), &x[0, 0, 0], &out[0, 0, 0], x.shape[1], resampling.n * 3, resampling)
    with nogil:
        parallel_for(_row, &job, x.shape[0])
    return out.base


def resample_columns(const uint8_t[:, :, ::1] x, const int32_t[::1] starts, const int32_t[:, ::1] weights,
                     int precision, uint8_t[:, :, ::1] out):
    """Compute out[i, x] = Σ_k weights[i, k] x[starts[i] + k, x] / 2^precision, rounded half up, between 0 and 255.

    ``x`` is (height, width, 3), ``out`` (n, width, 3), ``starts`` (n,), ``weights`` (n, taps).
    """
    cdef qv_resampling resampling = _checked(starts, weights, precision, x.shape[0])
    if x.shape[2] != 3 or out.shape[0] != resampling.n or out.shape[1] != x.shape[1] or out.shape[2] != 3:
        raise ValueError(f"x is {tuple(x.shape)[:3]}, out {tuple(out.shape)[:3]} for {resampling.n} rows")
    if x.shape[1] == 0:
        return out.base
    cdef Job job = Job(selected(), &x[0, 0, 0], &out[0, 0, 0], x.shape[1], x.shape[1] * 3, resampling)
    with nogil:
        parallel_for(_column, &job, resampling.n)
    return out.base
