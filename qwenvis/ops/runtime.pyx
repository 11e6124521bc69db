"""The selected instruction set and the package's only parallel loop."""

import os
from collections import namedtuple
from contextlib import contextmanager

import numpy as np

from qwenvis.errors import IsaError, quoted

from cython.parallel cimport prange
from cpython.buffer cimport PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer

from qwenvis.ops.kernels cimport QV_BF16, QV_DTYPE_COUNT, QV_F32, qv_dtype, qv_format, qv_isas, qv_itemsize, qv_kernels

cdef extern from "parallel.h" nogil:
    const int qv_openmp
    int qv_cpus
    ctypedef void (*qv_member)(void *team, int index) noexcept nogil
    int qv_granted(int count, void (*region)(qv_member member, void *team, int size) noexcept nogil)
    void qv_pool_run(task_t task, const void *context, Py_ssize_t n, int count)

cdef extern from *:
    """
    static _Thread_local int qv_thread_count = 1;
    static int qv_forked = 0; /* workers do not survive a fork: a child that started a loop on them would hang */
    #define qv_load(pointer) __atomic_load_n(&(pointer), __ATOMIC_RELAXED)
    #define qv_store(pointer, value) __atomic_store_n(&(pointer), value, __ATOMIC_RELAXED)
    """
    int qv_thread_count
    int qv_forked
    const qv_kernels *qv_load(const qv_kernels *pointer) nogil
    void qv_store(const qv_kernels *pointer, const qv_kernels *value)

cdef const qv_kernels *_selected = NULL  # through `selected` alone: any thread may select at any time

openmp = qv_openmp  # the version (a date, yyyymm) that the compiler implements; 0: a pool of our own
cache_line = CACHE_LINE  # bytes

# The NumPy dtype of the arrays that hold rows of each dtype. NumPy has no bfloat16.
cdef dict _HOLDERS = {QV_F32: np.dtype("float32"), QV_BF16: np.dtype("uint16")}
cdef dict _HELD = {holder: dtype for dtype, holder in _HOLDERS.items()}


cdef const qv_kernels *selected() noexcept nogil:
    return qv_load(_selected)


cdef const qv_format *format_named(const qv_kernels *isa, str name) except NULL:
    """Return the number format of an ISA with that name."""
    cdef const qv_format *format = isa.formats
    while format != NULL and format.name.decode() != name:
        format = format.before
    if format == NULL:
        raise ValueError(f"unknown format {name!r}; expected {', '.join(formats())}")
    return format


cdef Rows rows_of(array, str name, bint writable=False) except *:
    """Take a (n, d) array of float32, or of bfloat16 as uint16, with contiguous rows of any pitch."""
    cdef Rows rows
    if array.dtype not in _HELD or array.ndim != 2:
        raise ValueError(f"{name} has {array.ndim} dimensions and dtype {array.dtype}; expected 2 and float32, or "
                         "uint16 for bfloat16")
    rows.dtype = _HELD[array.dtype]
    rows.itemsize = qv_itemsize(rows.dtype)
    _place(&rows, array, name, writable)
    return rows


cdef Rows bytes_of(array, str name, bint writable=False) except *:
    """Take a (n, d) array of uint8 with contiguous rows of any pitch, such as quantised rows."""
    cdef Rows rows
    if array.dtype != np.uint8 or array.ndim != 2:
        raise ValueError(f"{name} has {array.ndim} dimensions and dtype {array.dtype}; expected 2 and uint8")
    rows.dtype, rows.itemsize = QV_DTYPE_COUNT, 1
    _place(&rows, array, name, writable)
    return rows


cdef _place(Rows *rows, array, str name, bint writable):
    """Take the place and the shape of an array, whose entries have ``rows.itemsize``."""
    cdef Py_buffer view
    if writable and not array.flags.writeable:
        raise ValueError(f"{name} is read-only")
    PyObject_GetBuffer(array, &view, PyBUF_STRIDED_RO)
    rows.data, rows.n, rows.d = <char *>view.buf, view.shape[0], view.shape[1]
    PyBuffer_Release(&view)
    if rows.n and rows.d > 1 and array.strides[1] != rows.itemsize:
        raise ValueError(f"{name}: rows must be contiguous")
    rows.pitch = array.strides[0] // rows.itemsize
    if rows.n > 1 and array.strides[0] % rows.itemsize:
        raise ValueError(f"{name}: the distance between rows must be a whole number of entries")


cdef int threads() noexcept nogil:
    return 1 if qv_forked else qv_thread_count


cdef void _region(qv_member member, void *team, int size) noexcept nogil:
    """Run member(team, 0 .. size-1) on a thread each: OpenMP starts them for the pool, and they never return."""
    cdef int index
    for index in prange(size, schedule="static", chunksize=1, num_threads=size):
        member(team, index)


cdef int granted(int count) noexcept nogil:
    """Start up to ``count`` threads for the ops of this Python thread; return the number that the system grants."""
    return 1 if qv_forked or count < 2 else qv_granted(count, _region)


cdef void parallel_for(task_t task, const void *context, Py_ssize_t n) noexcept nogil:
    """Run task(context, 0 .. n-1, worker) on the threads of this call; a free thread takes the next task."""
    parallel_on(threads(), task, context, n)


cdef void parallel_on(int most, task_t task, const void *context, Py_ssize_t n) noexcept nogil:
    """Run `parallel_for` on at most ``most`` threads: the number for which an op has allocated its scratch memory.

    Any Python code may run after an allocation and change `threads`, such as a finalizer that ends `use_threads`.
    """
    qv_pool_run(task, context, n, granted(most) if n > 1 else 1)


def granted_threads(int count):
    """Return how many of ``count`` threads the operating system starts for the ops of this Python thread."""
    return granted(count)


@contextmanager
def use_threads(int count):
    """Run the ops that this Python thread calls inside the block on ``count`` threads."""
    global qv_thread_count
    if count < 1:
        raise ValueError(f"the number of threads is {count}; expected at least 1")
    cdef int before = qv_thread_count
    qv_thread_count = count
    try:
        yield
    finally:
        qv_thread_count = before


def isas():
    """Return ``{name: present}`` for each instruction set that was compiled, plainest first."""
    found = {}
    cdef int i = 0
    while qv_isas[i] != NULL:
        if qv_isas[i].name != NULL:
            found[qv_isas[i].name.decode()] = bool(qv_isas[i].present())
        i += 1
    return found


def isa():
    """Return the name of the selected instruction set."""
    return selected().name.decode()


def use_isa(name=None):
    """Select an instruction set by name, or the best that is present. Weights keep the one they were packed with.

    Raises `IsaError` if it is unknown, not compiled in, or not on this CPU.
    """
    compiled = isas()
    if name is None:
        name = next(isa for isa in reversed(compiled) if compiled[isa])
    if name not in compiled:
        raise IsaError(f"ISA {quoted(name)} is not in this build, which has {', '.join(compiled)}")
    if not compiled[name]:
        here = ", ".join(isa for isa, present in compiled.items() if present)
        raise IsaError(f"this CPU lacks ISA {name!r}; it has {here}")
    cdef int i = 0
    while qv_isas[i].name == NULL or qv_isas[i].name.decode() != name:
        i += 1
    qv_store(_selected, qv_isas[i])


Format = namedtuple("Format", "itemsize rows_dtype expanded quantized")


def formats():
    """Return the number formats of weights on the selected ISA, by name, the most precise first.

    ``itemsize``: bytes of a stored weight; ``rows_dtype``: the dtype of the rows that `linear` multiplies by it,
    "float32", or "uint16", which holds bfloat16; ``expanded``: the ISA cannot multiply the format, so the weights are
    expanded to float32 as they are used; ``quantized``: the rows are rounded as `quantize` does, and multiplied as
    integers.
    """
    found = []
    cdef const qv_format *format = selected().formats
    while format != NULL:
        facts = Format(format.itemsize, dtype_name(format.rows_dtype), format.expand != NULL, format.quantize != NULL)
        found.append((format.name.decode(), facts))
        format = format.before
    return dict(reversed(found))


cdef str dtype_name(qv_dtype dtype):
    """Return the name of the NumPy dtype that holds rows of ``dtype``."""
    return _HOLDERS[dtype].name


cdef struct Probe:
    const qv_format *format
    Py_ssize_t steps
    double *flops  # of one thread: all do the same


cdef void _probe(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    cdef const Probe *probe = <const Probe *>context
    cdef float sink
    cdef double flops = probe.format.peak(probe.steps, &sink)
    if index == 0:
        probe.flops[0] = flops


def peak(Py_ssize_t steps, str format="f32"):
    """Run ``steps`` rounds of multiply-adds from registers on each thread; return the flops done (time it yourself)."""
    cdef double flops
    cdef int count = threads()
    cdef Probe probe
    probe.format, probe.steps, probe.flops = format_named(selected(), format), steps, &flops
    with nogil:
        parallel_for(_probe, &probe, count)
    return count * flops


def _after_fork():
    global qv_forked
    qv_forked = 1


qv_cpus = os.cpu_count() or 1
os.register_at_fork(after_in_child=_after_fork)
use_isa(os.environ.get("QWENVIS_ISA") or None)
