# A weight in panels, for the op that multiplies by it.
from qwenvis.ops.kernels cimport qv_format, qv_kernels

# A weight (n, k) in panels, and the table that it was packed with.
cdef struct Panels:
    const qv_kernels *isa
    const qv_format *format
    char *data
    float *bias            # of each packed column
    float *factors         # of the entries of rows, k_padded, where the format balances rows and weights
    Py_ssize_t n, k
    Py_ssize_t columns     # of the product that a panel makes: nr, or nr / 2 where it holds gate and up
    Py_ssize_t count
    Py_ssize_t last_width  # packed columns of the last panel, nr of all others
    Py_ssize_t k_padded    # whole blocks of the format
    Py_ssize_t column_nbytes # of a packed column, its part of the header included

cdef class PackedWeight:
    cdef readonly bint gated
    cdef object _memory  # of panels and bias; it may be replaced at any time, with them: see `held`
    cdef Panels panels
    cdef Py_ssize_t packed_columns
    cdef dict _waiting  # by thread, the half of a gated weight that came first, where the format needs both
    cdef held(self, Panels *panels)
    cdef _writable(self, Panels *panels)
    cdef _place(self, memory, bint only_first=*)
    cdef Py_ssize_t _filled(self)
    cdef Py_ssize_t _bias_nbytes(self)


cdef inline Py_ssize_t panel_width(const Panels *p, Py_ssize_t panel) noexcept nogil:
    """Return the packed columns of a panel."""
    return p.last_width if panel == p.count - 1 else p.format.nr


cdef inline char *panel_at(const Panels *p, Py_ssize_t panel) noexcept nogil:
    return p.data + panel * p.format.nr * p.column_nbytes
