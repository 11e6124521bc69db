"""Packed weights and the matrix product: out = activation(x Wᵀ + b)."""

from libc.stdint cimport uint16_t

import numpy as np

from qwenvis.ops.kernels cimport QV_ACTIVATION_COUNT, QV_MAX_MR, QV_MAX_NR, qv_format, qv_kernels
from qwenvis.ops.runtime cimport parallel_for, selected, threads

cdef extern from * nogil:
    """
    #define QV_NAME_OF(name) #name,
    static const char *const qv_activation_names[] = {QV_ACTIVATIONS(QV_NAME_OF)};
    """
    const char *const qv_activation_names[]

cdef enum:
    CACHE_LINE = 64
    ROW_TILES = 12       # tiles of rows a task: with 14 rows and K = 1280, 860 kB of x, most of a 1 MB L2
    COLUMNS = 320        # columns a task: long enough to pay for its start, short enough to share out
    TASKS_PER_THREAD = 4 # so that a thread that was slowed down does not hold up the rest

ACTIVATIONS = tuple([qv_activation_names[i].decode() for i in range(QV_ACTIVATION_COUNT)])


# A weight (n, k) in panels, and the table that it was packed with.
cdef struct Panels:
    const qv_kernels *isa
    const qv_format *format
    char *data
    float *bias            # of each packed column
    Py_ssize_t n, k
    Py_ssize_t step        # output columns of a panel: nr, or nr / 2 where a panel holds gate and up
    Py_ssize_t count
    Py_ssize_t last_width  # packed columns of the last panel


cdef class PackedWeight:
    """A weight (n, k) and its bias as panels of the selected ISA, packed once.

    With ``gated`` the panels hold two weights (n, k) side by side, gate and up, for the activation "silu_gate".
    """

    cdef readonly bint gated
    cdef Panels panels
    cdef object memory

    def __cinit__(self, Py_ssize_t n, Py_ssize_t k, *, bint gated=False):
        if n < 1 or k < 1:
            raise ValueError(f"a weight cannot be ({n}, {k})")
        cdef Panels *p = &self.panels
        self.gated = gated
        p.isa = selected()
        p.format = &p.isa.f32
        p.n, p.k = n, k
        p.step = p.format.nr // 2 if gated else p.format.nr
        p.count = (n + p.step - 1) // p.step
        p.last_width = p.format.nr // 2 if not gated and 2 * (n - (p.count - 1) * p.step) <= p.format.nr else p.format.nr
        cdef Py_ssize_t columns = (p.count - 1) * p.format.nr + p.last_width
        cdef Py_ssize_t size = (columns * k * p.format.itemsize + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
        self.memory = np.empty(CACHE_LINE + size + columns * sizeof(float), np.uint8)
        cdef unsigned char[::1] raw = self.memory
        p.data = <char *>(<size_t>(&raw[CACHE_LINE - 1]) & ~<size_t>(CACHE_LINE - 1))
        p.bias = <float *>(p.data + size)
        cdef Py_ssize_t i
        for i in range(columns):
            p.bias[i] = 0

    @property
    def shape(self):
        """(n, k): columns of the product, and the sum's length."""
        return self.panels.n, self.panels.k

    @property
    def nbytes(self):
        """Bytes that the packed weight and its bias occupy."""
        return self.memory.nbytes

    def pack(self, array, Py_ssize_t half=0):
        """Take the weight, (n, k) or (n, ...) with k entries a row, any float type; half 1 is ``up`` of a gated one."""
        array = np.ascontiguousarray(array).reshape(len(array), -1)
        if array.shape != self.shape:
            raise ValueError(f"weight is {array.shape}, expected {self.shape}")
        cdef Packing packing = Packing(self.panels, NULL, NULL, NULL, half)
        cdef const float[:, ::1] wide
        cdef const uint16_t[:, ::1] narrow
        cdef float[:, :, ::1] scratch
        if array.dtype.name == "bfloat16":
            narrow = array.view(np.uint16)
            scratch = np.empty((threads(), self.panels.step, self.panels.k), np.float32)
            packing.narrow, packing.scratch = &narrow[0, 0], &scratch[0, 0, 0]
        else:
            wide = array.astype(np.float32, copy=False)
            packing.wide = &wide[0, 0]
        with nogil:
            parallel_for(_pack_piece, &packing, self.panels.count)

    def pack_bias(self, array, Py_ssize_t half=0):
        """Take the bias: (n,), any float type."""
        cdef Panels *p = &self.panels
        cdef const float[::1] values = np.ascontiguousarray(array, np.float32)
        if values.shape[0] != p.n:
            raise ValueError(f"bias has {values.shape[0]} entries, expected {p.n}")
        cdef Py_ssize_t i
        for i in range(p.n):
            p.bias[i // p.step * p.format.nr + half * p.step + i % p.step] = values[i]


cdef struct Packing:
    Panels panels
    const float *wide       # the weight as float32,
    const uint16_t *narrow  # or as bfloat16,
    float *scratch          # which each worker widens here
    Py_ssize_t half


cdef void _pack_piece(const void *context, Py_ssize_t panel, int worker) noexcept nogil:
    """One panel: its columns are rows of the weight."""
    cdef const Packing *job = <const Packing *>context
    cdef const Panels *p = &job.panels
    cdef Py_ssize_t first = panel * p.step, columns = min(p.step, p.n - first)
    cdef Py_ssize_t width = p.last_width if panel == p.count - 1 else p.format.nr
    cdef const float *rows
    cdef float *scratch
    if job.narrow != NULL:
        scratch = job.scratch + worker * p.step * p.k
        p.isa.widen_bf16(job.narrow + first * p.k, columns * p.k, scratch)
        rows = scratch
    else:
        rows = job.wide + first * p.k
    p.format.pack(rows, p.k, columns, p.k,
                  p.data + (panel * p.format.nr * p.k + job.half * p.step) * p.format.itemsize, min(p.step, width),
                  width)


cdef struct Job:
    Panels panels
    const char *x
    float *out
    Py_ssize_t m, pitch, out_pitch                        # pitches in entries
    Py_ssize_t rows, row_blocks, panels_each, panel_blocks # a task: `rows` rows by `panels_each` panels
    int activation
    bint add


cdef void _piece(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """One task; tasks that are neighbours in time share their panels."""
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t top = index % job.row_blocks * job.rows
    cdef Py_ssize_t first = index // job.row_blocks * job.panels_each
    cdef Py_ssize_t panel
    for panel in range(first, min(first + job.panels_each, job.panels.count)):
        _rows_by_panel(job, top, min(top + job.rows, job.m), panel)


cdef void _rows_by_panel(const Job *job, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t panel) noexcept nogil:
    """The panel stays in L2 while the rows pass by."""
    cdef const Panels *p = &job.panels
    cdef float sums[QV_MAX_MR * QV_MAX_NR]
    cdef Py_ssize_t width = p.last_width if panel == p.count - 1 else p.format.nr
    cdef Py_ssize_t column = panel * p.step, columns = min(p.step, p.n - column)
    cdef const char *weights = p.data + panel * p.format.nr * p.k * p.format.itemsize
    cdef Py_ssize_t row = top, rows
    while row < bottom:
        rows = min(p.format.mr, bottom - row)
        p.format.tile(rows, p.k, job.x + row * job.pitch * p.format.itemsize, job.pitch, weights, width, sums, width, 0)
        p.isa.finish[job.activation](sums, rows, width, p.bias + panel * p.format.nr)
        p.isa.store(sums, width, rows, columns, job.out + row * job.out_pitch + column, job.out_pitch, job.add)
        row += rows


cdef void _share_out(Job *job) noexcept nogil:
    """Tasks as large as the caches like, and small enough that every thread gets several."""
    cdef Py_ssize_t tiles = ROW_TILES, wanted = TASKS_PER_THREAD * threads()
    job.panels_each = max(1, COLUMNS // job.panels.format.nr)
    while True:
        job.rows = tiles * job.panels.format.mr
        job.row_blocks = (job.m + job.rows - 1) // job.rows
        job.panel_blocks = (job.panels.count + job.panels_each - 1) // job.panels_each
        if job.row_blocks * job.panel_blocks >= wanted or tiles + job.panels_each == 2:
            return
        if job.panels_each > 1:
            job.panels_each = (job.panels_each + 1) // 2
        else:
            tiles = (tiles + 1) // 2


def linear(const float[:, :] x, PackedWeight weight, float[:, :] out, *, str activation="none", bint add=False):
    """out = activation(x Wᵀ + b), or out += ... with ``add``.

    ``x`` is (m, k), ``weight`` (n, k), ``out`` (m, n); float32, rows contiguous, any pitch. ``activation`` is one of
    `ACTIVATIONS`; "silu_gate" goes with a gated weight: out = silu(x Gᵀ + bg) * (x Uᵀ + bu).
    A row of out depends on its row of x alone: not on m, on the other rows, or on the threads.
    """
    cdef Job job
    job.panels = weight.panels
    job.m = x.shape[0]
    if x.shape[1] != job.panels.k or out.shape[0] != job.m or out.shape[1] != job.panels.n:
        raise ValueError(f"x is ({job.m}, {x.shape[1]}), out ({out.shape[0]}, {out.shape[1]}), weight {weight.shape}")
    if activation not in ACTIVATIONS or weight.gated != (activation == "silu_gate"):
        raise ValueError(f"activation {activation!r} does not fit a weight with gated={weight.gated}")
    if job.m == 0:
        return out.base
    if x.strides[1] != sizeof(float) or out.strides[1] != sizeof(float):
        raise ValueError("rows must be contiguous")
    job.x, job.out = <const char *>&x[0, 0], &out[0, 0]
    job.pitch, job.out_pitch = x.strides[0] // sizeof(float), out.strides[0] // sizeof(float)
    job.activation, job.add = ACTIVATIONS.index(activation), add
    _share_out(&job)
    with nogil:
        parallel_for(_piece, &job, job.row_blocks * job.panel_blocks)
    return out.base
