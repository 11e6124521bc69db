# Attention of one pair of a segment and a head, for the op that shares pairs out.
from libc.stdint cimport int32_t

from qwenvis.ops.kernels cimport qv_format, qv_kernels
from qwenvis.ops.runtime cimport Rows

cdef enum:
    KEYS = 512       # keys a block: keys and values of a block stay in L2, a tile of scores in L1
    QUERY_TILES = 5  # tiles of queries a block: 70 rows with the AVX-512 tile
    MAX_HEAD_DIM = 256


# Queries, keys or values, (n, heads, head_dim) float32; strides in entries.
cdef struct Heads:
    const float *data
    Py_ssize_t row, head


cdef struct Job:
    const qv_kernels *isa
    const qv_format *format
    Heads q, k, v
    const float *cos
    const float *sin
    Rows out
    Py_ssize_t heads, head_dim, padded_dim, group  # group: query heads of a key head
    const int32_t *cu_seqlens
    char *packed                   # keys and values of some pairs, one after the other
    char *scratch                  # of the workers
    Py_ssize_t pair_size           # packed bytes of a pair
    Py_ssize_t scratch_size        # bytes of a worker
    Py_ssize_t first_pair          # of a wave
    Py_ssize_t key_blocks, query_blocks  # of the longest segment


# One head of the queries of one segment, with the keys and values that they see.
cdef struct Pair:
    Py_ssize_t start, n, head
    char *keys      # packed
    char *values
    float *squares  # (panels of keys,) the largest squared length of a key


cdef Py_ssize_t pair_size(const Job *job, Py_ssize_t n) noexcept nogil
cdef Py_ssize_t scratch_size(const Job *job) noexcept nogil
cdef Pair pair_of(const Job *job, Py_ssize_t index, char *packed) noexcept nogil
cdef void pack_keys_values(const Job *job, const Pair *pair, Py_ssize_t block, char *scratch) noexcept nogil
cdef void attend_queries(const Job *job, const Pair *pair, Py_ssize_t block, char *scratch) noexcept nogil
