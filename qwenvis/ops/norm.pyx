"""LayerNorm and RMSNorm over the rows of a matrix."""

from qwenvis.ops.kernels cimport qv_norm
from qwenvis.ops.runtime cimport Rows, ceil_div, parallel_for, rows_of, selected

cdef enum:
    ROWS = 32  # rows of a task: some 10 us of work at 1280 columns

cdef struct Job:
    qv_norm norm
    Rows x, out
    const float *weight
    const float *bias
    Py_ssize_t d, group
    float eps


cdef void _task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t r, h, d = job.d
    for r in range(index * ROWS, min((index + 1) * ROWS, job.x.n)):
        for h in range(job.x.d // d):
            job.norm(<const float *>job.x.data + r * job.x.pitch + h * d, d, job.weight, job.bias, job.eps,
                     job.out.data + ((r // job.group) * job.out.pitch + (r % job.group) * job.x.d + h * d)
                     * job.out.itemsize, job.out.dtype)


cdef _run(qv_norm norm, x, const float[::1] weight, const float[::1] bias, float eps, out):
    cdef Job job
    job.norm, job.x, job.out, job.eps = norm, rows_of(x, "x"), rows_of(out, "out", True), eps
    cdef Py_ssize_t columns = job.x.d
    job.d, job.group = weight.shape[0], job.out.d // columns if columns else 0
    if x.dtype != "float32":
        raise ValueError(f"x is {x.dtype}, expected float32")
    if bias.shape[0] != job.d or (columns % job.d if job.d else columns):
        raise ValueError(f"weight and bias have {job.d} and {bias.shape[0]} entries; x has {columns} columns")
    if job.group * columns != job.out.d or job.group * job.out.n != job.x.n:
        raise ValueError(f"out is {out.shape}; x is {x.shape}")
    if job.x.n == 0 or columns == 0:
        return
    job.weight, job.bias = &weight[0], &bias[0]
    with nogil:
        parallel_for(_task, &job, ceil_div(job.x.n, ROWS))


def layer_norm(x, weight, bias, float eps, out):
    """Compute out = (x - mean) / sqrt(var + eps) * weight + bias, row by row; return ``out``.

    ``x`` is (n, d) float32, ``weight`` and ``bias`` (d,), ``out`` (n / g, g * d) for any g, with g rows of x side by
    side: float32, or bfloat16 in uint16. If ``x`` is (n, h * d), each of its h parts, like a head, is normed by itself.
    Formula: torch.nn.LayerNorm.
    """
    _run(selected().layer_norm, x, weight, bias, eps, out)
    return out


def rms_norm(x, weight, float eps, out):
    """Compute out = x / sqrt(mean(x^2) + eps) * weight, row by row; return ``out``. Shapes as in `layer_norm`.

    Formula: transformers Qwen2_5_VLRMSNorm.
    """
    _run(selected().rms_norm, x, weight, weight, eps, out)
    return out
