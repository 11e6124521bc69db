# The door to the kernels and to the threads, for the other ops.
from qwenvis.ops.kernels cimport qv_kernels

# One independent piece of an op: piece(context, index, worker), worker < threads().
ctypedef void (*piece_t)(const void *context, Py_ssize_t index, int worker) noexcept nogil

cdef const qv_kernels *selected() noexcept nogil
cdef int threads() noexcept nogil
cdef void parallel_for(piece_t piece, const void *context, Py_ssize_t n) noexcept nogil
