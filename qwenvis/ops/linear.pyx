"""Packed weights and the matrix product: out = activation(x Wᵀ + b)."""

from libc.stdint cimport uint16_t

import numpy as np

from qwenvis.ops.kernels cimport (QV_ACTIVATION_COUNT, QV_BF16, QV_CHUNK, QV_F32, QV_MAX_MR, QV_MAX_NR, qv_format,
                                  qv_kernels, qv_kind)
from qwenvis.ops.runtime cimport Rows, kind_of, parallel_for, rows_of, selected, threads

cdef extern from * nogil:
    """
    #define QV_NAME_OF(name) #name,
    static const char *const qv_activation_names[] = {QV_ACTIVATIONS(QV_NAME_OF)};
    """
    const char *const qv_activation_names[]

cdef enum:
    CACHE_LINE = 64
    MAX_SIZE = 1 << 26   # of n and of k: the bytes of a weight fit 63 bits
    ROW_TILES = 12       # most tiles of rows a task: with 14 rows and K = 1280, 860 kB of x, most of a 1 MB L2
    EXPANDED_ROWS = 144  # most rows a task where a panel is expanded, once for all of them
    COLUMNS = 320        # columns a task: long enough to pay for its start, short enough to share out
    LINES_X = 4          # after which the hardware has seen that a row is a stream
    TASKS_PER_THREAD = 16 # so that the last tasks end together, also where a thread was slowed down

cdef extern from "prefetch.h" nogil:
    void qv_prefetch(const char *address, Py_ssize_t lines)

ACTIVATIONS = tuple([qv_activation_names[i].decode() for i in range(QV_ACTIVATION_COUNT)])


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
    """A weight (n, k) and its bias as panels of the selected ISA, packed once, in "f32" or "bf16".

    With ``gated`` the panels hold two weights (n, k) side by side, gate and up, for the activation "silu_gate".
    """

    cdef readonly bint gated
    cdef Panels panels
    cdef Py_ssize_t columns  # packed
    cdef object memory       # None before the first tensor comes

    def __cinit__(self, Py_ssize_t n, Py_ssize_t k, str format="f32", *, bint gated=False):
        if not (0 < n <= MAX_SIZE and 0 < k <= MAX_SIZE):
            raise ValueError(f"a weight cannot be ({n}, {k}); sizes go from 1 to {MAX_SIZE}")
        cdef Panels *p = &self.panels
        self.gated = gated
        p.isa = selected()
        p.stored = kind_of(format)
        p.format = &p.isa.formats[<int>p.stored]
        p.n, p.k = n, k
        p.step = p.format.nr // 2 if gated else p.format.nr
        p.count = _in_parts(n, p.step)
        rest = n - (p.count - 1) * p.step
        p.last_width = p.format.nr // 2 if not gated and 2 * rest <= p.format.nr else p.format.nr
        p.k_padded = _in_parts(k, p.format.kr) * p.format.kr
        self.columns = (p.count - 1) * p.format.nr + p.last_width
        self.memory = None

    cdef _allocate(self):
        """Memory for the panels, aligned, and for the bias behind them; not before there is something to pack."""
        cdef Panels *p = &self.panels
        if self.memory is not None:
            return
        self.memory = np.empty(self.nbytes, np.uint8)
        cdef unsigned char[::1] raw = self.memory
        cdef Py_ssize_t i
        p.data = <char *>(<size_t>(&raw[CACHE_LINE - 1]) & ~<size_t>(CACHE_LINE - 1))
        p.bias = <float *>(p.data + _in_lines(self.columns * p.k_padded * p.format.itemsize))
        for i in range(self.columns):
            p.bias[i] = 0

    @property
    def shape(self):
        """(n, k): columns of the product, and the sum's length."""
        return self.panels.n, self.panels.k

    @property
    def rows_dtype(self):
        """What `linear` multiplies it with: "float32", or "uint16", which holds bfloat16."""
        return "uint16" if self.panels.format.rows == QV_BF16 else "float32"

    @property
    def nbytes(self):
        """Bytes that the packed weight and its bias take."""
        cdef Panels *p = &self.panels
        return CACHE_LINE + _in_lines(self.columns * p.k_padded * p.format.itemsize) + self.columns * sizeof(float)

    def pack(self, array, Py_ssize_t half=0):
        """Take the weight, (n, k) or (n, ...) with k entries a row, any float type; half 1 is ``up`` of a gated one."""
        array = np.ascontiguousarray(array).reshape(len(array), -1)
        if array.shape != self.shape:
            raise ValueError(f"weight is {array.shape}, expected {self.shape}")
        _check_half(self.gated, half)
        self._allocate()
        cdef Packing packing
        packing.panels, packing.half = self.panels, half
        packing.source = QV_BF16 if array.dtype.name == "bfloat16" else QV_F32
        if packing.source == QV_F32:
            array = array.astype(np.float32, copy=False)
        cdef const char[::1] rows = array.reshape(-1).view(np.int8)
        packing.rows = &rows[0]
        cdef float[:, :, ::1] scratch
        if packing.source != self.panels.stored:
            scratch = np.empty((threads(), self.panels.step, self.panels.k), np.float32)
            packing.scratch = &scratch[0, 0, 0]
        with nogil:
            parallel_for(_pack_piece, &packing, self.panels.count)

    def pack_bias(self, array, Py_ssize_t half=0):
        """Take the bias: (n,), any float type."""
        _check_half(self.gated, half)
        cdef Panels *p = &self.panels
        cdef const float[::1] values = np.ascontiguousarray(array, np.float32)
        if values.shape[0] != p.n:
            raise ValueError(f"bias has {values.shape[0]} entries, expected {p.n}")
        self._allocate()
        cdef Py_ssize_t i
        for i in range(p.n):
            p.bias[i // p.step * p.format.nr + half * p.step + i % p.step] = values[i]


cdef Py_ssize_t _in_lines(Py_ssize_t size) noexcept nogil:
    return _in_parts(size, CACHE_LINE) * CACHE_LINE


cdef _check_half(bint gated, Py_ssize_t half):
    if not 0 <= half <= gated:
        raise ValueError(f"there is no half {half} of a weight with gated={gated}")


cdef struct Packing:
    Panels panels
    const char *rows  # of the weight, in this kind;
    qv_kind source
    float *scratch    # where each worker turns them into what the format stores
    Py_ssize_t half


cdef void _pack_piece(const void *context, Py_ssize_t panel, int worker) noexcept nogil:
    """One panel: its columns are rows of the weight."""
    cdef const Packing *job = <const Packing *>context
    cdef const Panels *p = &job.panels
    cdef Py_ssize_t first = panel * p.step, columns = min(p.step, p.n - first)
    cdef Py_ssize_t width = p.last_width if panel == p.count - 1 else p.format.nr
    cdef const char *rows = job.rows + first * p.k * (2 if job.source == QV_BF16 else 4)
    cdef float *scratch = job.scratch + worker * p.step * p.k
    if job.source != p.stored:
        if job.source == QV_BF16:
            p.isa.widen_bf16(<const uint16_t *>rows, columns * p.k, scratch)
        else:
            p.isa.copy(<const float *>rows, columns * p.k, scratch, p.stored)
        rows = <const char *>scratch
    p.format.pack(rows, p.k, columns, p.k,
                  p.data + (panel * p.format.nr * p.k_padded + job.half * p.step * p.format.kr) * p.format.itemsize,
                  min(p.step, width), width)


cdef struct Job:
    Panels panels
    Rows x, out
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
        if job.panels.format.expand == NULL:
            _multiply(job, top, min(top + job.rows, job.x.n), panel)
        else:
            _expand_and_multiply(job, top, min(top + job.rows, job.x.n), panel)


cdef void _multiply(const Job *job, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t panel) noexcept nogil:
    """The panel stays in L2 while the rows pass by."""
    cdef const Panels *p = &job.panels
    cdef float sums[QV_MAX_MR * QV_MAX_NR]
    cdef Py_ssize_t width = p.last_width if panel == p.count - 1 else p.format.nr
    cdef const char *weights = p.data + panel * p.format.nr * p.k_padded * p.format.itemsize
    cdef Py_ssize_t row = top, rows, lines = _in_parts(p.step * job.out.itemsize, CACHE_LINE)
    while row < bottom:
        rows = min(p.format.mr, bottom - row)
        _ask_for(&job.x, row + rows, rows, 0, LINES_X)
        _ask_for(&job.out, row, rows, panel * p.step, lines)  # from memory, while the tile computes
        p.format.tile(rows, p.k, job.x.data + row * job.x.pitch * job.x.itemsize, job.x.pitch, weights, width, sums,
                      width, False)
        _ask_for(&job.out, row, rows, panel * p.step, lines)  # from L2, where the panel drove it
        _finish(job, sums, row, rows, panel, width)
        row += rows


cdef void _ask_for(const Rows *array, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t column,
                   Py_ssize_t lines) noexcept nogil:
    """Fetch cache lines of some rows, from a column on."""
    cdef Py_ssize_t r
    for r in range(row, row + rows):
        qv_prefetch(array.data + (r * array.pitch + column) * array.itemsize, lines)


cdef void _expand_and_multiply(const Job *job, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t panel) noexcept nogil:
    """A chunk of the panel is expanded to float32, once for all rows of the task, which gets the bits of float32."""
    cdef const Panels *p = &job.panels
    cdef float expanded[QV_CHUNK * QV_MAX_NR]  # and sums: 82 kB of a worker's stack, which may have 128
    cdef float sums[EXPANDED_ROWS * QV_MAX_NR]
    cdef Py_ssize_t width = p.last_width if panel == p.count - 1 else p.format.nr
    cdef const char *weights = p.data + panel * p.format.nr * p.k_padded * p.format.itemsize
    cdef const float *x = <const float *>job.x.data
    cdef Py_ssize_t first = 0, row, steps, mr = p.format.mr
    while first < p.k:
        steps = min(<Py_ssize_t>QV_CHUNK, p.k - first)
        p.format.expand(weights + first * width * p.format.itemsize, steps, width, expanded)
        row = top
        while row < bottom:
            p.format.tile(min(mr, bottom - row), steps, x + row * job.x.pitch + first, job.x.pitch, expanded, width,
                          sums + (row - top) * width, width, first > 0)
            if first + steps == p.k:
                _finish(job, sums + (row - top) * width, row, min(mr, bottom - row), panel, width)
            row += mr
        first += steps


cdef void _finish(const Job *job, float *sums, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t panel,
                  Py_ssize_t width) noexcept nogil:
    """The epilogue of a tile, while its sums are in L1."""
    cdef const Panels *p = &job.panels
    cdef Py_ssize_t column = panel * p.step
    p.isa.finish[job.activation](sums, rows, width, p.bias + panel * p.format.nr)
    p.isa.store(sums, width, rows, min(p.step, p.n - column),
                job.out.data + (row * job.out.pitch + column) * job.out.itemsize, job.out.pitch, job.out.kind, job.add)


cdef void _share_out(Job *job) noexcept nogil:
    """Even tasks, as large as the caches like, and small enough that every thread gets several."""
    cdef Py_ssize_t mr = job.panels.format.mr, nr = job.panels.format.nr, panels = job.panels.count
    cdef Py_ssize_t tiles = _in_parts(job.x.n, mr), wanted = TASKS_PER_THREAD * threads()
    cdef Py_ssize_t most = ROW_TILES if job.panels.format.expand == NULL else EXPANDED_ROWS // mr
    if job.panels.format.expand == NULL:
        most = max(1, min(most, job.panels.isa.rows_nbytes // (mr * job.x.d * job.x.itemsize)))
    job.row_blocks = _in_parts(tiles, most)
    job.panel_blocks = max(_in_parts(panels * nr, COLUMNS), min(panels, _in_parts(wanted, job.row_blocks)))
    job.row_blocks = max(job.row_blocks, min(tiles, _in_parts(wanted, job.panel_blocks)))
    job.rows = _in_parts(tiles, job.row_blocks) * mr
    job.row_blocks = _in_parts(job.x.n, job.rows)
    job.panels_each = _in_parts(panels, job.panel_blocks)
    job.panel_blocks = _in_parts(panels, job.panels_each)


cdef Py_ssize_t _in_parts(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """How many parts of at most ``size`` hold n."""
    return (n + size - 1) // size


def linear(x, PackedWeight weight, out, *, str activation="none", bint add=False):
    """out = activation(x Wᵀ + b), or out += ... with ``add``.

    ``x`` is (m, k) of the weight's `rows_dtype`, ``weight`` (n, k), ``out`` (m, n) float32, or bfloat16 in uint16; rows
    contiguous, any pitch. ``activation`` is one of `ACTIVATIONS`; "silu_gate" goes with a gated weight:
    out = silu(x Gᵀ + bg) * (x Uᵀ + bu). Sums are float32.
    A row of out depends on its row of x alone: not on m, on the other rows, or on the threads.
    """
    cdef Job job
    job.panels, job.x, job.out = weight.panels, rows_of(x, "x"), rows_of(out, "out", True)
    if job.x.d != job.panels.k or job.out.n != job.x.n or job.out.d != job.panels.n:
        raise ValueError(f"x is {x.shape}, out {out.shape}, weight {weight.shape}")
    if job.x.kind != job.panels.format.rows or (add and job.out.kind != QV_F32):
        raise ValueError(f"x is {x.dtype}, the weight multiplies {weight.rows_dtype}; out is {out.dtype}, add={add}")
    if job.x.n > 1 and job.x.pitch % job.panels.format.kr:
        raise ValueError(f"rows of x lie {job.x.pitch} entries apart, no multiple of {job.panels.format.kr}")
    if activation not in ACTIVATIONS or weight.gated != (activation == "silu_gate"):
        raise ValueError(f"activation {activation!r} does not fit a weight with gated={weight.gated}")
    if weight.memory is None:
        raise ValueError("the weight has not been packed")
    if job.x.n == 0:
        return out
    job.activation, job.add = ACTIVATIONS.index(activation), add
    _share_out(&job)
    with nogil:
        parallel_for(_piece, &job, job.row_blocks * job.panel_blocks)
    return out
