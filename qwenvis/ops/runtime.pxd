# Access to the kernels, the threads and arrays, for the other ops.
from qwenvis.ops.kernels cimport qv_dtype, qv_format, qv_kernels

cdef extern from "prefetch.h" nogil:
    enum:
        CACHE_LINE "QV_CACHE_LINE"
    void prefetch "qv_prefetch"(const char *address, Py_ssize_t lines)
    void prefetch_to_write "qv_prefetch_to_write"(const char *address, Py_ssize_t lines)
    void prefetch_far "qv_prefetch_far"(const char *address, Py_ssize_t lines)

# One independent task of an op: task(context, index, worker), worker < threads().
ctypedef void (*task_t)(const void *context, Py_ssize_t index, int worker) noexcept nogil

# A matrix whose rows are contiguous; valid while the array that it was taken from lives.
cdef struct Rows:
    char *data
    Py_ssize_t n, d
    Py_ssize_t pitch  # entries from row to row
    Py_ssize_t itemsize
    qv_dtype dtype

cdef const qv_kernels *selected() noexcept nogil
cdef const qv_format *format_named(const qv_kernels *isa, str name) except NULL
cdef str dtype_name(qv_dtype dtype)
cdef Rows rows_of(array, str name, bint writable=*) except *
cdef Rows bytes_of(array, str name, bint writable=*) except *
cdef int threads() noexcept nogil
cdef void parallel_for(task_t task, const void *context, Py_ssize_t n) noexcept nogil
cdef void parallel_on(int most, task_t task, const void *context, Py_ssize_t n) noexcept nogil


cdef inline Py_ssize_t ceil_div(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """Return the number of parts of at most ``size`` that hold n."""
    return (n + size - 1) // size


cdef inline Py_ssize_t round_up(Py_ssize_t n, Py_ssize_t unit) noexcept nogil:
    """Return the smallest multiple of ``unit`` that is not below n."""
    return ceil_div(n, unit) * unit
