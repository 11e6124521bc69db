"""Resizing of bytes along one axis, in whole numbers: each entry is a weighted sum of neighbours, rounded and clipped.

Weights have ``bits`` bits behind the point, so that no order of the sums changes a result.
"""

from libc.stdint cimport int16_t, int32_t, uint8_t

from qwenvis.ops.runtime cimport parallel_for

cdef enum:
    CHANNELS = 3
    BLOCK = 192  # entries whose sums stay in L1 while the rows go by

cdef struct Job:
    const uint8_t *image
    uint8_t *out
    const int32_t *starts
    const int16_t *weights
    Py_ssize_t taps
    int bits
    Py_ssize_t size                # of the axis that is resized
    Py_ssize_t pitch, out_pitch    # entries of a row
    Py_ssize_t resized             # entries of the axis in out


cdef inline uint8_t _rounded(int32_t total, int bits) noexcept nogil:
    total = total >> bits
    return <uint8_t>(0 if total < 0 else 255 if total > 255 else total)


cdef void _row(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """One row, resized along itself."""
    cdef const Job *job = <const Job *>context
    cdef const uint8_t *x
    cdef uint8_t *out = job.out + index * job.out_pitch
    cdef const int16_t *weights
    cdef Py_ssize_t i, k, count
    cdef int32_t half = 1 << (job.bits - 1), red, green, blue, weight
    for i in range(job.resized):
        weights = job.weights + i * job.taps
        x = job.image + index * job.pitch + job.starts[i] * CHANNELS
        count = min(job.taps, job.size - job.starts[i])
        red = green = blue = half
        for k in range(count):
            weight = weights[k]
            red += weight * x[k * CHANNELS]
            green += weight * x[k * CHANNELS + 1]
            blue += weight * x[k * CHANNELS + 2]
        out[i * CHANNELS] = _rounded(red, job.bits)
        out[i * CHANNELS + 1] = _rounded(green, job.bits)
        out[i * CHANNELS + 2] = _rounded(blue, job.bits)


cdef void _blended_row(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """One row of out, a sum of rows, a block of entries at a time."""
    cdef const Job *job = <const Job *>context
    cdef const int16_t *weights = job.weights + index * job.taps
    cdef Py_ssize_t first, i, k, n, count = min(job.taps, job.size - job.starts[index])
    cdef const uint8_t *x
    cdef uint8_t *out
    cdef int32_t sums[BLOCK]
    cdef int16_t weight
    first = 0
    while first < job.pitch:
        n = min(job.pitch - first, <Py_ssize_t>BLOCK)
        x = job.image + job.starts[index] * job.pitch + first
        out = job.out + index * job.pitch + first
        for i in range(n):
            sums[i] = 1 << (job.bits - 1)
        for k in range(count):
            weight = weights[k]
            for i in range(n):
                sums[i] += <int32_t>weight * <int16_t>x[i]
            x += job.pitch
        for i in range(n):
            out[i] = _rounded(sums[i], job.bits)
        first += BLOCK


cdef object _checked(Job *job, const uint8_t[:, :, ::1] image, const int32_t[::1] starts, const int16_t[:, ::1] weights,
                     uint8_t[:, :, ::1] out, int axis):
    """Fill in the job, once everything fits."""
    if image.shape[2] != CHANNELS or out.shape[2] != CHANNELS or image.shape[0] * image.shape[1] == 0:
        raise ValueError(f"image is {tuple(image.shape)[:3]}; expected pixels of three channels")
    if out.shape[1 - axis] != image.shape[1 - axis]:
        raise ValueError(f"out is {tuple(out.shape)[:3]}; the other side is {image.shape[1 - axis]}")
    if starts.shape[0] != out.shape[axis] or weights.shape[0] != out.shape[axis] or weights.shape[1] == 0:
        raise ValueError(f"{starts.shape[0]} starts and {weights.shape[0]} rows of weights; {out.shape[axis]} expected")
    cdef Py_ssize_t i
    for i in range(starts.shape[0]):
        if starts[i] < 0 or starts[i] >= image.shape[axis]:
            raise ValueError(f"starts[{i}] is {starts[i]}; there are {image.shape[axis]} entries")
    if not 0 < job.bits < 23:
        raise ValueError(f"bits is {job.bits}; expected 1 to 22")
    job.image, job.out, job.taps = &image[0, 0, 0], &out[0, 0, 0], weights.shape[1]
    job.starts, job.weights, job.size = &starts[0], &weights[0, 0], image.shape[axis]
    job.pitch, job.out_pitch, job.resized = image.shape[1] * CHANNELS, out.shape[1] * CHANNELS, out.shape[axis]


def resample_rows(const uint8_t[:, :, ::1] image, const int32_t[::1] starts, const int16_t[:, ::1] weights, int bits,
                  uint8_t[:, :, ::1] out):
    """out[y, i] = clip(round(sum over k of weights[i, k] image[y, starts[i] + k] / 2^bits)).

    ``image`` is (h, w, 3) uint8 and ``out`` (h, width, 3); what lies behind the image has no weight. The sums are
    int32: 255 times the weights of a row, in absolute values, must fit.
    """
    cdef Job job
    job.bits = bits
    if out.shape[1] == 0:
        return out.base
    _checked(&job, image, starts, weights, out, 1)
    with nogil:
        parallel_for(_row, &job, image.shape[0])
    return out.base


def resample_columns(const uint8_t[:, :, ::1] image, const int32_t[::1] starts, const int16_t[:, ::1] weights, int bits,
                     uint8_t[:, :, ::1] out):
    """out[i, x] = clip(round(sum over k of weights[i, k] image[starts[i] + k, x] / 2^bits)).

    ``image`` is (h, w, 3) uint8 and ``out`` (height, w, 3); as `resample_rows` otherwise.
    """
    cdef Job job
    job.bits = bits
    if out.shape[0] == 0:
        return out.base
    _checked(&job, image, starts, weights, out, 0)
    with nogil:
        parallel_for(_blended_row, &job, out.shape[0])
    return out.base
