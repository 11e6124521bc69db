# Rows as the tiles of a quantising format read them, for the op that multiplies them.
from qwenvis.ops.packed_weight cimport Panels
from qwenvis.ops.runtime cimport Rows

cdef void quantize_rows(const Panels *panels, const Rows *x, const Rows *out, float *scratch,
                        int workers) noexcept nogil
