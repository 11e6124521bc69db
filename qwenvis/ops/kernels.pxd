# The contract of the kernels (kernels.h), as Cython sees it.
from libc.stdint cimport int32_t, uint8_t, uint16_t

cdef extern from "kernels.h" nogil:
    enum:
        QV_MAX_MR
        QV_MAX_NR
        QV_CHUNK
        QV_SCRATCH
        QV_TRAILER
        QV_WORD
        QV_ACTIVATION_COUNT

    ctypedef enum qv_dtype:
        QV_F32
        QV_BF16
        QV_DTYPE_COUNT

    Py_ssize_t qv_itemsize(qv_dtype dtype)

    ctypedef struct qv_format:
        const char *name
        const qv_format *before
        const qv_format *attention
        qv_dtype rows_dtype
        qv_dtype source_dtype
        int mr
        int nr
        int kr
        int block
        int itemsize
        int header
        Py_ssize_t most_k
        void (*expand)(const void *panel, const float *factors, Py_ssize_t first, Py_ssize_t steps, Py_ssize_t width,
                       float *out) noexcept nogil
        void (*balance)(const float *squares, Py_ssize_t k, float *of_rows, float *of_weights) noexcept nogil
        void (*quantize)(const void *x, Py_ssize_t k, const float *factors, float *scratch, void *row) noexcept nogil
        void (*pack)(const void *w, Py_ssize_t pitch, Py_ssize_t columns, Py_ssize_t k, const float *factors,
                     void *panel, Py_ssize_t fill, Py_ssize_t width) noexcept nogil
        void (*pack_transposed)(const float *w, Py_ssize_t pitch, Py_ssize_t columns, Py_ssize_t k, void *panel,
                                Py_ssize_t width) noexcept nogil
        void (*tile)(Py_ssize_t rows, Py_ssize_t k, const void *a, Py_ssize_t pitch, const void *panel,
                     Py_ssize_t width, float *sums, Py_ssize_t sums_pitch, int add) noexcept nogil
        double (*peak)(Py_ssize_t steps, float *sink) noexcept nogil

    ctypedef void (*qv_norm)(const float *x, Py_ssize_t d, const float *weight, const float *bias, float eps, void *out,
                             qv_dtype dtype) noexcept nogil

    ctypedef struct qv_resampling:
        const int32_t *starts
        const int32_t *weights
        Py_ssize_t taps
        Py_ssize_t n
        int precision

    ctypedef struct qv_kernels:
        const char *name
        int (*present)() noexcept nogil
        Py_ssize_t rows_nbytes
        const qv_format *formats
        void (*finish[1])(const float *sums, Py_ssize_t rows, Py_ssize_t width, const float *bias, void *out,
                          Py_ssize_t pitch, Py_ssize_t columns, qv_dtype dtype,
                          int add) noexcept nogil  # QV_ACTIVATION_COUNT of them
        qv_norm layer_norm
        qv_norm rms_norm
        float (*rope)(const float *x, const float *cos, const float *sin, Py_ssize_t half, float scale, void *out,
                     qv_dtype dtype) noexcept nogil
        void (*softmax)(float *s, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t n, float *m, float *l, float *factors,
                        void *out, qv_dtype dtype) noexcept nogil
        void (*powers)(float *s, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t n, const float *tops, float *totals,
                       void *out, qv_dtype dtype) noexcept nogil
        void (*add_squares)(const void *x, Py_ssize_t n, qv_dtype dtype, float *squares) noexcept nogil
        float (*sum)(const float *x, Py_ssize_t d) noexcept nogil
        void (*scale)(const float *x, Py_ssize_t d, float factor, void *out, qv_dtype dtype) noexcept nogil
        void (*copy)(const float *x, Py_ssize_t n, void *out, qv_dtype dtype) noexcept nogil
        void (*lookup)(const uint8_t *x, Py_ssize_t stride, Py_ssize_t n, const float *table, float *out) noexcept nogil
        void (*resample_row)(const uint8_t *x, Py_ssize_t width, const qv_resampling *r, uint8_t *out) noexcept nogil
        void (*resample_column)(const uint8_t *x, Py_ssize_t bytes, const qv_resampling *r, Py_ssize_t i,
                                uint8_t *out) noexcept nogil
        void (*widen_bf16)(const uint16_t *x, Py_ssize_t n, float *out) noexcept nogil
        int (*all_finite)(const void *x, Py_ssize_t n, qv_dtype dtype) noexcept nogil

    const qv_kernels *const qv_isas[]
