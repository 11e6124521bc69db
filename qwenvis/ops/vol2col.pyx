"""Frames to patches: normalise, cut and reorder by merge units, in one pass from bytes to float32."""

from libc.stdint cimport uint8_t

from qwenvis.ops.kernels cimport qv_kernels
from qwenvis.ops.runtime cimport ceil_div, parallel_for, selected

cdef struct Job:
    const qv_kernels *isa
    const uint8_t *frames
    const float *lut
    float *out
    Py_ssize_t count, height, width      # frames
    Py_ssize_t patch, temporal, merge


cdef void _patch(const Job *job, Py_ssize_t step, Py_ssize_t row, Py_ssize_t column, float *out) noexcept nogil:
    """Fill one row of pixel_values: (channel, frame, y, x)."""
    cdef Py_ssize_t channel, t, y, frame
    cdef const uint8_t *line
    for channel in range(3):
        for t in range(job.temporal):
            frame = min(step * job.temporal + t, job.count - 1)  # the last frame is repeated
            for y in range(job.patch):
                line = job.frames + ((frame * job.height + row * job.patch + y) * job.width + column * job.patch) * 3
                job.isa.lookup(line + channel, 3, job.patch, job.lut + 256 * channel, out)
                out += job.patch


cdef void _task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """Cut one row of merge units of one temporal step."""
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t rows = job.height // job.patch, columns = job.width // job.patch, merge = job.merge
    cdef Py_ssize_t step = index // (rows // merge), top = index % (rows // merge) * merge
    cdef Py_ssize_t entries = 3 * job.temporal * job.patch * job.patch
    cdef float *out = job.out + index * merge * columns * entries
    cdef Py_ssize_t block, y, x
    for block in range(columns // merge):
        for y in range(merge):
            for x in range(merge):
                _patch(job, step, top + y, block * merge + x, out)
                out += entries


def vol2col(const uint8_t[:, :, :, ::1] frames, const float[:, ::1] lut, Py_ssize_t patch_size,
            Py_ssize_t temporal_patch_size, Py_ssize_t merge_size, float[:, ::1] out):
    """Write the patches of ``frames`` into the rows of ``out``, by merge unit; return ``out``.

    ``frames`` is (t, height, width, 3) uint8, with sides that are multiples of patch_size * merge_size; the last frame
    is repeated up to a multiple of ``temporal_patch_size``. ``lut`` (3, 256) float32 holds the value of each byte of
    each channel. ``out`` is (patches, 3 * temporal_patch_size * patch_size^2) float32.
    Order: transformers Qwen2VLImageProcessorPil.
    """
    cdef Py_ssize_t count = frames.shape[0], height = frames.shape[1], width = frames.shape[2]
    cdef Py_ssize_t side = patch_size * merge_size
    if patch_size < 1 or merge_size < 1 or temporal_patch_size < 1:
        raise ValueError(f"sizes are {patch_size}, {temporal_patch_size} and {merge_size}; expected positive ones")
    if count == 0 or height % side or width % side or frames.shape[3] != 3:
        raise ValueError(f"frames are {tuple(frames.shape)[:4]}; sides must be multiples of {side}")
    cdef Py_ssize_t steps = ceil_div(count, temporal_patch_size)
    cdef Py_ssize_t n = steps * (height // patch_size) * (width // patch_size)
    if lut.shape[0] != 3 or lut.shape[1] != 256:
        raise ValueError("lut must be (3, 256)")
    if out.shape[0] != n or out.shape[1] != 3 * temporal_patch_size * patch_size * patch_size:
        raise ValueError(f"out is ({out.shape[0]}, {out.shape[1]}); there are {n} patches")
    if n == 0:
        return out.base
    cdef Job job = Job(selected(), &frames[0, 0, 0, 0], &lut[0, 0], &out[0, 0], count, height, width, patch_size,
                       temporal_patch_size, merge_size)
    with nogil:
        parallel_for(_task, &job, steps * (height // side))
    return out.base
