"""A weight in the layout of the kernels: packed once into panels of the selected instruction set."""

from threading import get_ident

from libc.stdint cimport uint16_t

import cython
import numpy as np

from qwenvis.ops.finite cimport lower
from qwenvis.ops.kernels cimport QV_BF16, QV_F32, QV_TRAILER, qv_dtype, qv_itemsize, qv_kernels
from qwenvis.ops.runtime cimport (
    CACHE_LINE, ceil_div, dtype_name, format_named, parallel_for, parallel_on, round_up, selected, threads
)

cdef enum:
    MAX_SIZE = 1 << 26  # of n and of k: the bytes of a weight fit 63 bits
    SQUARED = 256       # columns along K that a task adds up


cdef class PackedWeight:
    """A weight (n, k) and its bias as panels of the selected ISA, packed once, in one of `formats`.

    With ``gated`` the panels hold two weights (n, k) side by side, gate and up, for the activation "silu_gate".
    """

    def __cinit__(self, Py_ssize_t n, Py_ssize_t k, str format="f32", *, bint gated=False):
        if not (0 < n <= MAX_SIZE and 0 < k <= MAX_SIZE):
            raise ValueError(f"a weight cannot have shape ({n}, {k}); expected sizes from 1 to {MAX_SIZE}")
        cdef Panels *p = &self.panels
        self.gated = gated
        p.isa = selected()
        p.format = format_named(p.isa, format)
        if 0 < p.format.most_k < k:
            raise ValueError(f"sums of {k} products overflow in {format}; expected at most {p.format.most_k}")
        p.n, p.k = n, k
        p.columns = p.format.nr // 2 if gated else p.format.nr
        p.count = ceil_div(n, p.columns)
        rest = n - (p.count - 1) * p.columns
        p.last_width = p.format.nr // 2 if not gated and 2 * rest <= p.format.nr else p.format.nr
        p.k_padded = round_up(k, p.format.block)
        p.column_nbytes = p.format.header + p.k_padded * p.format.itemsize
        self.packed_columns = (p.count - 1) * p.format.nr + p.last_width
        self._memory, self._waiting = None, {}

    cdef held(self, Panels *panels):
        """Copy the places of panels and bias; return their memory, for the caller to hold while it uses them.

        Another thread may map the weight anew at any time, so both are taken in one step.
        """
        with cython.critical_section(self):
            panels[0] = self.panels
            memory = self._memory
        return memory

    cdef _writable(self, Panels *panels):
        """Return the memory as `held` does; if there is none yet, allocate it from a cache line on."""
        memory = self.held(panels)
        if memory is None:
            raw = np.empty(self.nbytes + CACHE_LINE, np.uint8)
            first = -raw.ctypes.data % CACHE_LINE
            memory = raw[first:first + self.nbytes]
            memory[self._filled():].fill(0)
            self._place(memory, only_first=True)
            memory = self.held(panels)
        if not memory.flags.writeable:
            raise ValueError("the weight is mapped, so nothing can be packed into it")
        return memory

    cdef _place(self, memory, bint only_first=False):
        """Take panels and bias from ``memory`` from now on; with ``only_first``, unless there is memory already."""
        cdef const unsigned char[::1] bytes_ = memory
        cdef char *data = <char *>&bytes_[0]
        cdef char *bias = data + round_up(self._filled(), CACHE_LINE)
        with cython.critical_section(self):
            before = self._memory  # dropped last: that may run other code
            if before is None or not only_first:
                self.panels.data, self.panels.bias, self._memory = data, <float *>bias, memory
                self.panels.factors = <float *>(bias + self._bias_nbytes())

    cdef Py_ssize_t _filled(self):
        """Return the bytes of all panels; bias and factors follow, each from a cache line on."""
        return self.packed_columns * self.panels.column_nbytes

    cdef Py_ssize_t _bias_nbytes(self):
        return round_up(self.packed_columns * <Py_ssize_t>sizeof(float), CACHE_LINE)

    def map(self, memory):
        """Take panels and bias from the ``memory`` of another weight like this one, and never write there.

        ``memory`` is (nbytes,) uint8 and begins with a cache line, such as the bytes of a mapped file. Raises
        ValueError for any other array.
        """
        if memory.shape != (self.nbytes,) or memory.dtype != np.uint8 or memory.ctypes.data % CACHE_LINE:
            raise ValueError(f"memory is {memory.shape} {memory.dtype}; expected ({self.nbytes},) uint8, aligned")
        memory = memory.view()
        memory.flags.writeable = False
        self._place(memory)

    @property
    def memory(self):
        """The panels, and bias and factors behind them, as (nbytes,) uint8; None before the first tensor comes."""
        cdef Panels panels
        return self.held(&panels)

    @property
    def isa(self):
        """The instruction set that the weight is packed for."""
        return self.panels.isa.name.decode()

    @property
    def shape(self):
        """(n, k): the columns of the product, and the length of its sums."""
        return self.panels.n, self.panels.k

    @property
    def rows_dtype(self):
        """The dtype of the rows that `linear` multiplies by it: "float32", or "uint16", which holds bfloat16."""
        return dtype_name(self.panels.format.rows_dtype)

    @property
    def quantized_nbytes(self):
        """The bytes of a row that `quantize` makes for this weight; 0 for a format that multiplies rows as they are."""
        return self.panels.k_padded + QV_TRAILER if self.panels.format.quantize != NULL else 0

    @property
    def nbytes(self):
        """The bytes of the packed weight, its bias and its factors, in whole cache lines."""
        cdef Py_ssize_t factors = self.panels.k_padded if self.panels.format.balance != NULL else 0
        return (round_up(self._filled(), CACHE_LINE) + self._bias_nbytes()
                + round_up(factors * <Py_ssize_t>sizeof(float), CACHE_LINE))

    def pack(self, array, Py_ssize_t half=0):
        """Pack the weight, (n, k) or (n, ...) with k entries a row, any float type; half 1 is ``up`` of a gated weight.

        Where the format needs both halves of a gated weight, the first is copied until the same thread brings the
        second: another thread may pack all of the weight meanwhile. Raises FloatingPointError for an array that is not
        finite, or not finite in the format, after which the weight has to be packed again; and ValueError for another
        shape, and if the weight is mapped.
        """
        cdef Panels panels
        array = np.ascontiguousarray(array).reshape(len(array), -1)
        if array.shape != self.shape:
            raise ValueError(f"weight is {array.shape}, expected {self.shape}")
        _check_half(self.gated, half)
        if array.dtype.name != "bfloat16":
            array = array.astype(np.float32, copy=False)
        memory = self._writable(&panels)  # held until all is packed
        if panels.format.balance == NULL:
            _pack(&panels, array, half, None)
            return
        _check_finite(panels.isa, array)
        halves = {**self._waiting.pop(get_ident(), {}), half: array}
        if len(halves) <= self.gated:
            self._waiting[get_ident()] = {half: array.copy()}
            return
        factors = _balance(&panels, [halves[half] for half in sorted(halves)])
        for half, array in halves.items():
            _pack(&panels, array, half, factors)

    def pack_bias(self, array, Py_ssize_t half=0):
        """Pack the bias, (n,) of any float type, as `pack`. Raises FloatingPointError unless it is finite."""
        _check_half(self.gated, half)
        cdef Panels panels
        cdef Panels *p = &self.panels
        cdef const float[::1] values = np.ascontiguousarray(array, np.float32)
        if values.shape[0] != p.n:
            raise ValueError(f"bias has {values.shape[0]} entries, expected {p.n}")
        if not p.isa.all_finite(&values[0], p.n, QV_F32):
            raise FloatingPointError("the bias is not finite")
        memory = self._writable(&panels)  # held until all is there
        cdef Py_ssize_t i
        for i in range(p.n):
            panels.bias[i // p.columns * p.format.nr + half * p.columns + i % p.columns] = values[i]


cdef _check_finite(const qv_kernels *isa, array):
    cdef const char[::1] entries = array.reshape(-1).view(np.int8)
    if not isa.all_finite(&entries[0], array.size, _dtype_of(array)):
        raise FloatingPointError("the weight is not finite")


cdef _check_half(bint gated, Py_ssize_t half):
    if not 0 <= half <= gated:
        raise ValueError(f"there is no half {half} of a weight with gated={gated}")


cdef struct Packing:
    Panels panels
    const char *rows  # of the weight, as it was passed
    qv_dtype source
    float *scratch    # where each worker turns them into what the format stores
    const float *factors
    Py_ssize_t half
    int *finite


cdef _pack(const Panels *panels, array, Py_ssize_t half, factors):
    """Pack one half of a weight, float32 or bfloat16. Raises FloatingPointError."""
    cdef int finite = True, workers = threads()
    cdef Packing packing
    packing.panels, packing.half, packing.finite = panels[0], half, &finite
    packing.source = _dtype_of(array)
    cdef const char[::1] rows = array.reshape(-1).view(np.int8)
    cdef const float[::1] factors_ = factors
    packing.rows, packing.factors = &rows[0], <const float *>NULL if factors is None else &factors_[0]
    cdef float[:, :, ::1] scratch
    if packing.source != panels.format.source_dtype:
        scratch = np.empty((workers, panels.columns, panels.k), np.float32)
        packing.scratch = &scratch[0, 0, 0]
    with nogil:
        parallel_on(workers, _pack_task, &packing, panels.count)
    if not finite:
        raise FloatingPointError("the weight is not finite")


cdef qv_dtype _dtype_of(array):
    return QV_BF16 if array.dtype.name == "bfloat16" else QV_F32


cdef void _pack_task(const void *context, Py_ssize_t panel, int worker) noexcept nogil:
    """Pack one panel, whose columns are rows of the weight."""
    cdef const Packing *job = <const Packing *>context
    cdef const Panels *p = &job.panels
    cdef Py_ssize_t first = panel * p.columns, columns = min(p.columns, p.n - first)
    cdef Py_ssize_t width = panel_width(p, panel)
    cdef const char *rows = job.rows + first * p.k * qv_itemsize(job.source)
    cdef float *scratch = job.scratch + worker * p.columns * p.k
    if job.source != p.format.source_dtype:
        if job.source == QV_BF16:
            p.isa.widen_bf16(<const uint16_t *>rows, columns * p.k, scratch)
        else:
            p.isa.copy(<const float *>rows, columns * p.k, scratch, p.format.source_dtype)
        rows = <const char *>scratch
    if not p.isa.all_finite(rows, columns * p.k, p.format.source_dtype):  # and they are in L2 from here on
        lower(job.finite)
    p.format.pack(rows, p.k, columns, p.k, job.factors,
                  panel_at(p, panel) + job.half * p.columns * p.format.kr * p.format.itemsize, min(p.columns, width),
                  width)


cdef struct Squaring:
    const char *rows
    qv_dtype dtype
    Py_ssize_t n, k
    const qv_kernels *isa
    float *squares


cdef void _square_task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """Add the squares of some columns along K, from the first row to the last."""
    cdef const Squaring *job = <const Squaring *>context
    cdef Py_ssize_t first = index * SQUARED, count = min(<Py_ssize_t>SQUARED, job.k - first), row
    for row in range(job.n):
        job.isa.add_squares(job.rows + (row * job.k + first) * qv_itemsize(job.dtype), count, job.dtype,
                            job.squares + first)


cdef _balance(const Panels *panels, halves):
    """Leave the factors of rows beside the panels; return those of the weight, whose halves these are."""
    cdef float[::1] squares = np.zeros(panels.k, np.float32), factors = np.empty(panels.k, np.float32)
    cdef Squaring job
    cdef const char[::1] rows
    for array in halves:
        rows = array.reshape(-1).view(np.int8)
        job.rows, job.dtype, job.n, job.k = &rows[0], _dtype_of(array), panels.n, panels.k
        job.isa, job.squares = panels.isa, &squares[0]
        with nogil:
            parallel_for(_square_task, &job, ceil_div(panels.k, SQUARED))
    panels.format.balance(&squares[0], panels.k, panels.factors, &factors[0])
    return np.asarray(factors)
