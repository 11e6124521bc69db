"""LayerNorm and RMSNorm over the rows of a matrix."""

from qwenvis.ops.runtime cimport parallel_for, selected

cdef enum:
    ROWS = 32  # rows a piece: some 10 us of work at 1280 columns

ctypedef void (*norm_t)(const float *x, Py_ssize_t d, const float *weight, const float *bias, float eps,
                        float *out) noexcept nogil

cdef struct Job:
    norm_t norm
    const float *x
    const float *weight
    const float *bias
    float *out
    Py_ssize_t n, d, pitch, out_pitch, group
    float eps


cdef void _piece(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t r
    for r in range(index * ROWS, min((index + 1) * ROWS, job.n)):
        job.norm(job.x + r * job.pitch, job.d, job.weight, job.bias, job.eps,
                 job.out + (r // job.group) * job.out_pitch + (r % job.group) * job.d)


cdef _run(norm_t norm, const float[:, :] x, const float[::1] weight, const float[::1] bias, float eps,
          float[:, :] out):
    cdef Py_ssize_t n = x.shape[0], d = x.shape[1]
    cdef Py_ssize_t group = out.shape[1] // d if d else 0
    if weight.shape[0] != d or bias.shape[0] != d:
        raise ValueError(f"weight and bias have {weight.shape[0]} and {bias.shape[0]} entries; x has {d} columns")
    if group * d != out.shape[1] or group * out.shape[0] != n:
        raise ValueError(f"out is ({out.shape[0]}, {out.shape[1]}); x is ({n}, {d})")
    if n == 0:
        return
    if x.strides[1] != sizeof(float) or out.strides[1] != sizeof(float):
        raise ValueError("rows must be contiguous")
    cdef Job job = Job(norm, &x[0, 0], &weight[0], &bias[0], &out[0, 0], n, d, x.strides[0] // sizeof(float),
                       out.strides[0] // sizeof(float), group, eps)
    with nogil:
        parallel_for(_piece, &job, (n + ROWS - 1) // ROWS)


def layer_norm(x, weight, bias, float eps, out):
    """out = (x - mean) / sqrt(var + eps) * weight + bias, by row.

    ``x`` is (n, d), ``weight`` and ``bias`` (d,), ``out`` (n / g, g * d) for any g: g rows of x side by side.
    All float32. Formula: torch.nn.LayerNorm.
    """
    _run(selected().layer_norm, x, weight, bias, eps, out)
    return out


def rms_norm(x, weight, float eps, out):
    """out = x / sqrt(mean(x^2) + eps) * weight, by row. Shapes as in `layer_norm`.

    Formula: transformers Qwen2_5_VLRMSNorm.
    """
    _run(selected().rms_norm, x, weight, weight, eps, out)
    return out
