"""The matrix product with a packed weight: out = activation(x Wᵀ + b)."""

import numpy as np

from qwenvis.ops.kernels cimport (
    QV_ACTIVATION_COUNT, QV_CHUNK, QV_F32, QV_MAX_MR, QV_MAX_NR, QV_SCRATCH, QV_TRAILER, QV_WORD
)
from qwenvis.ops.packed_weight cimport PackedWeight, Panels, panel_at, panel_width
from qwenvis.ops.quantize cimport quantize_rows
from qwenvis.ops.runtime cimport (
    CACHE_LINE, Rows, bytes_of, ceil_div, parallel_on, prefetch_far, prefetch_to_write, round_up, rows_of, threads
)

cdef extern from * nogil:
    """
    #define QV_NAME_OF(name) #name,
    static const char *const qv_activation_names[] = {QV_ACTIVATIONS(QV_NAME_OF)};
    """
    const char *const qv_activation_names[]

cdef enum:
    ROW_TILES = 12       # most tiles of rows a task: with 14 rows and K = 1280, 860 kB of x, most of a 1 MB L2
    NEAR_NBYTES = 450 << 10 # of x: more tiles a task where they take no more, half of a 1 MB L2
    EXPANDED_ROWS = 144  # most rows a task where a panel is expanded, once for all of them; tuned by benchmarks.ops
    EXPANDED_FLOATS = (QV_CHUNK + EXPANDED_ROWS) * QV_MAX_NR  # of a worker: a chunk of a panel, and sums
    QUANTIZED_ROWS = 2048 # most rows that are quantised at a time: 3 MB at K = 1280
    COLUMNS = 320        # columns a task: long enough to pay for its start, short enough to share out
    TASKS_PER_THREAD = 16 # so that the last tasks end together, also where a thread was slowed down

quantized_rows = QUANTIZED_ROWS

ACTIVATIONS = tuple([qv_activation_names[i].decode() for i in range(QV_ACTIVATION_COUNT)])


cdef struct Job:
    Panels panels
    Rows x, out
    Py_ssize_t rows, row_blocks, panels_each, panel_blocks # a task: `rows` rows by `panels_each` panels
    int activation
    bint add
    int workers      # at most
    float *expanded  # of the workers, EXPANDED_FLOATS each, where the format has to be expanded


cdef void _task(const void *context, Py_ssize_t index, int worker) noexcept nogil:
    """Compute one task; tasks that run one after the other share their panels."""
    cdef const Job *job = <const Job *>context
    cdef Py_ssize_t top = index % job.row_blocks * job.rows
    cdef Py_ssize_t first = index // job.row_blocks * job.panels_each
    cdef Py_ssize_t panel
    for panel in range(first, min(first + job.panels_each, job.panels.count)):
        if job.panels.format.expand == NULL:
            _multiply(job, top, min(top + job.rows, job.x.n), panel)
        else:
            _expand_and_multiply(job, top, min(top + job.rows, job.x.n), panel, worker)


cdef void _multiply(const Job *job, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t panel) noexcept nogil:
    """Multiply the rows of a task by one panel, which stays in L2."""
    cdef const Panels *p = &job.panels
    cdef float sums[QV_MAX_MR * QV_MAX_NR]
    cdef Py_ssize_t width = panel_width(p, panel)
    cdef const char *weights = panel_at(p, panel)
    cdef Py_ssize_t row = top, rows, column = panel * p.columns
    cdef Py_ssize_t lines = ceil_div(p.columns * job.out.itemsize, CACHE_LINE)
    while row < bottom:
        rows = ceil_div(bottom - row, ceil_div(bottom - row, p.format.mr))  # even tiles: a low one waits for the panel
        _prefetch(prefetch_far, &job.out, row, rows, column, lines)  # from memory, while the tile computes
        p.format.tile(rows, p.k, job.x.data + row * job.x.pitch * job.x.itemsize, job.x.pitch, weights, width, sums,
                      width, False)
        _prefetch(prefetch_to_write, &job.out, row, rows, column, lines)  # from L2, where the panel drove it
        _finish(job, sums, row, rows, panel, width)
        row += rows


ctypedef void (*prefetch_t)(const char *address, Py_ssize_t lines) noexcept nogil


cdef inline void _prefetch(prefetch_t prefetch_lines, const Rows *array, Py_ssize_t row, Py_ssize_t rows,
                           Py_ssize_t column, Py_ssize_t lines) noexcept nogil:
    """Prefetch ``lines`` cache lines of each of some rows, from a column on."""
    cdef Py_ssize_t r
    for r in range(row, row + rows):
        prefetch_lines(array.data + (r * array.pitch + column) * array.itemsize, lines)


cdef void _expand_and_multiply(const Job *job, Py_ssize_t top, Py_ssize_t bottom, Py_ssize_t panel,
                               int worker) noexcept nogil:
    """Multiply as `_multiply`, by chunks of the panel that are expanded to float32 once for all rows of the task."""
    cdef const Panels *p = &job.panels
    cdef float *expanded = job.expanded + worker * <Py_ssize_t>EXPANDED_FLOATS
    cdef float *sums = expanded + QV_CHUNK * QV_MAX_NR
    cdef Py_ssize_t width = panel_width(p, panel)
    cdef const char *weights = panel_at(p, panel)
    cdef const float *x = <const float *>job.x.data
    cdef Py_ssize_t first = 0, row, steps, mr = p.format.mr
    while first < p.k:
        steps = min(<Py_ssize_t>QV_CHUNK, p.k - first)
        p.format.expand(weights, p.factors, first, steps, width, expanded)
        row = top
        while row < bottom:
            p.format.tile(min(mr, bottom - row), steps, x + row * job.x.pitch + first, job.x.pitch, expanded, width,
                          sums + (row - top) * width, width, first > 0)
            if first + steps == p.k:
                _finish(job, sums + (row - top) * width, row, min(mr, bottom - row), panel, width)
            row += mr
        first += steps


cdef void _finish(const Job *job, const float *sums, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t panel,
                  Py_ssize_t width) noexcept nogil:
    """Run the epilogue of a tile, while its sums are in L1."""
    cdef const Panels *p = &job.panels
    cdef Py_ssize_t column = panel * p.columns
    p.isa.finish[job.activation](sums, rows, width, p.bias + panel * p.format.nr,
                                 job.out.data + (row * job.out.pitch + column) * job.out.itemsize, job.out.pitch,
                                 min(p.columns, p.n - column), job.out.dtype, job.add)


cdef _place_expanded(Job *job):
    """Allocate the expanded chunks of the workers, which a small stack cannot hold; return the memory, if any."""
    if job.panels.format.expand == NULL:
        return None
    memory = np.empty(job.workers * EXPANDED_FLOATS + CACHE_LINE // sizeof(float), np.float32)
    cdef float[::1] entries = memory
    job.expanded = <float *>round_up(<Py_ssize_t>&entries[0], CACHE_LINE)
    return memory


cdef void partition(Job *job) noexcept nogil:
    """Cut the product into even tasks: as large as the caches allow, and small enough that each thread gets several."""
    cdef Py_ssize_t mr = job.panels.format.mr, nr = job.panels.format.nr, panels = job.panels.count
    cdef Py_ssize_t tiles = ceil_div(job.x.n, mr), wanted = TASKS_PER_THREAD * job.workers
    cdef Py_ssize_t most = EXPANDED_ROWS // mr, nbytes
    if job.panels.format.expand == NULL:  # else a chunk of each row is all that has to stay near
        nbytes = mr * job.x.d * job.x.itemsize
        most = max(1, min(max(<Py_ssize_t>ROW_TILES, NEAR_NBYTES // nbytes), job.panels.isa.rows_nbytes // nbytes))
    job.row_blocks = ceil_div(tiles, most)
    job.panel_blocks = max(ceil_div(panels * nr, COLUMNS), min(panels, ceil_div(wanted, job.row_blocks)))
    job.row_blocks = max(job.row_blocks, min(tiles, ceil_div(wanted, job.panel_blocks)))
    job.rows = ceil_div(job.x.n, job.row_blocks)
    job.row_blocks = ceil_div(job.x.n, job.rows)
    job.panels_each = ceil_div(panels, job.panel_blocks)
    job.panel_blocks = ceil_div(panels, job.panels_each)


cdef void _multiply_rows(Job *job) noexcept nogil:
    """Compute the product by tasks."""
    partition(job)
    parallel_on(job.workers, _task, job, job.row_blocks * job.panel_blocks)


cdef _quantize_and_multiply(Job *job):
    """Compute the product by chunks of rows, each quantised before it is multiplied."""
    cdef const Panels *p = &job.panels
    cdef Py_ssize_t each = ceil_div(job.x.n, ceil_div(job.x.n, QUANTIZED_ROWS)), first = 0
    cdef Py_ssize_t floats = job.workers * (p.k + QV_SCRATCH)
    cdef Rows x = job.x, out = job.out, quantized
    quantized.d, quantized.itemsize = p.k_padded + QV_TRAILER, 1
    quantized.pitch = round_up(quantized.d, CACHE_LINE)
    memory = np.empty(4 * floats + each * quantized.pitch + CACHE_LINE, np.uint8)
    cdef unsigned char[::1] bytes_ = memory
    cdef char *scratch = <char *>round_up(<Py_ssize_t>&bytes_[0], CACHE_LINE)
    quantized.data = scratch + 4 * floats
    with nogil:
        while first < x.n:
            job.x.n = job.out.n = quantized.n = min(each, x.n - first)
            job.x.data = x.data + first * x.pitch * x.itemsize
            job.out.data = out.data + first * out.pitch * out.itemsize
            quantize_rows(p, &job.x, &quantized, <float *>scratch, job.workers)
            job.x = quantized
            _multiply_rows(job)
            job.x = x
            first += each


def linear(x, PackedWeight weight, out, *, str activation="none", bint add=False):
    """Compute out = activation(x Wᵀ + b), or out += ... with ``add``; return ``out``.

    ``x`` is (m, k) of the weight's `rows_dtype`, or what `quantize` made of it, ``weight`` (n, k), ``out`` (m, n)
    float32, or bfloat16 in uint16; rows contiguous, any pitch. ``activation`` is one of `ACTIVATIONS`; "silu_gate"
    goes with a gated weight: out = silu(x Gᵀ + bg) * (x Uᵀ + bu). Sums are float32, or exact where rows are quantised.
    A row of out depends on its row of x alone: not on m, on the other rows, or on the threads.
    """
    cdef Job job
    memory = weight.held(&job.panels)
    cdef bint quantized = x.dtype == np.uint8 and job.panels.format.quantize != NULL
    job.x, job.out = bytes_of(x, "x") if quantized else rows_of(x, "x"), rows_of(out, "out", True)
    if (job.x.d != (weight.quantized_nbytes if quantized else job.panels.k) or job.out.n != job.x.n
            or job.out.d != job.panels.n):
        raise ValueError(f"x is {x.shape}, out {out.shape}, weight {weight.shape}")
    if (job.x.dtype != job.panels.format.rows_dtype and not quantized) or (add and job.out.dtype != QV_F32):
        raise ValueError(f"x is {x.dtype}, the weight multiplies {weight.rows_dtype}; out is {out.dtype}, add={add}")
    cdef bint multiplied = quantized or job.panels.format.quantize == NULL  # as they are
    if multiplied and job.x.n > 1 and job.x.pitch * job.x.itemsize % QV_WORD:
        raise ValueError(f"rows of x lie {job.x.pitch} entries apart; expected a multiple of {QV_WORD} bytes")
    if activation not in ACTIVATIONS or weight.gated != (activation == "silu_gate"):
        raise ValueError(f"activation {activation!r} does not fit a weight with gated={weight.gated}")
    if memory is None:
        raise ValueError("the weight has not been packed")
    if job.x.n == 0:
        return out
    job.activation, job.add, job.workers = ACTIVATIONS.index(activation), add, threads()
    expanded = _place_expanded(&job)  # held until all is done
    if multiplied:
        with nogil:
            _multiply_rows(&job)
    else:
        _quantize_and_multiply(&job)
    return out
