"""Arrays that end or begin at a protected page, and the ops on such arrays. Linux only: mprotect.

The first access beyond such an array ends the process.
"""

import ctypes
import faulthandler
import itertools
import mmap

import ml_dtypes
import numpy as np

from qwenvis import ops

READ_WRITE, NOTHING = mmap.PROT_READ | mmap.PROT_WRITE, 0


class Edge:
    """Make arrays that end at a protected page, or begin right after one."""

    def __init__(self, at_end):
        self.at_end = at_end

    def __call__(self, values):
        values = np.ascontiguousarray(values)
        pages = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(-1, pages + 2 * mmap.PAGESIZE, prot=READ_WRITE)
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (address, address + mmap.PAGESIZE + pages):
            if mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), NOTHING):
                raise OSError(ctypes.get_errno(), "mprotect")
        first = mmap.PAGESIZE + (pages - values.nbytes if self.at_end else 0)
        array = np.frombuffer(memory, values.dtype, values.size, first).reshape(values.shape)
        array[...] = values
        return array

    def random(self, *shape):
        return self(np.random.default_rng(shape).standard_normal(shape, np.float32))


def run_linear(edge):
    for m, n, k, gated in itertools.product([1, 13, 30], [1, 15, 33, 70], [1, 5, 19], [False, True]):
        weight = ops.PackedWeight(n, k, gated=gated)
        for half in range(1 + gated):
            weight.pack(edge(edge.random(n, k).astype(ml_dtypes.bfloat16) if half else edge.random(n, k)), half=half)
            weight.pack_bias(edge.random(n), half=half)
        for add in (False, True):
            activation = "silu_gate" if gated else "gelu"
            ops.linear(edge.random(m, k), weight, edge.random(m, n), activation=activation, add=add)


def run_attention(edge):
    for head_dim, lengths in itertools.product([2, 12, 64, 72], [[1], [5, 0, 33], [300, 7]]):
        cu_seqlens = edge(np.cumsum([0, *lengths]).astype(np.int32))
        n = int(cu_seqlens[-1])
        qkv = [edge.random(n, heads, head_dim) for heads in (4, 2, 2)]
        rope = [edge.random(n, head_dim // 2) for _ in range(2)]
        scratch = edge.random(ops.attention_scratch(max(lengths), 1, head_dim))
        ops.attention(qkv, rope, cu_seqlens, edge.random(n, 4 * head_dim), scratch)


def run_rows(edge):
    for n, d in itertools.product([1, 33], [1, 3, 15, 17, 31, 33, 65]):
        x, w, b, out = edge.random(n, d), edge.random(d), edge.random(d), edge.random(n, d)
        ops.layer_norm(x, w, b, 1e-6, out)
        ops.rms_norm(x, w, 1e-6, out)
        ops.gather(x, edge(np.arange(n)[::-1]), out)


def run_vol2col(edge):
    for t, rows, columns, patch in itertools.product([1, 2, 3], [1, 2], [1, 3], [1, 7, 14]):
        frames = edge(np.zeros((t, 2 * rows * patch, 2 * columns * patch, 3), np.uint8))
        out = edge.random(-(-t // 2) * 4 * rows * columns, 6 * patch**2)
        ops.vol2col(frames, edge.random(3, 256), patch, 2, 2, out)


def run_all(isa, threads, at_end):
    faulthandler.enable()
    ops.use_isa(isa)
    with ops.use_threads(threads):
        for run_op in (run_linear, run_attention, run_rows, run_vol2col):
            run_op(Edge(at_end))
