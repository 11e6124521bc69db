# A weight in panels, for the op that multiplies by it.
from qwenvis.ops.kernels cimport qv_format, qv_kernels, qv_kind

# A weight (n, k) in panels, and the table that it was packed with.
cdef struct Panels:
    const qv_kernels *isa
    const qv_format *format
    qv_kind stored
    char *data
    float *bias            # of each packed column
    Py_ssize_t n, k
    Py_ssize_t step        # output columns of a panel: nr, or nr / 2 where a panel holds gate and up
    Py_ssize_t count
    Py_ssize_t last_width  # packed columns of the last panel
    Py_ssize_t k_padded    # whole groups of the format

cdef class PackedWeight:
    cdef readonly bint gated
    cdef readonly object memory
    cdef Panels panels
    cdef Py_ssize_t columns  # packed
    cdef _allocate(self)
    cdef _place(self, memory)
    cdef Py_ssize_t _filled(self)
