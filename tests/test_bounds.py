"""Nothing beyond an array is read or written: each array of each op ends, or begins, at a page that nobody may touch.

Poison shows what is read and used; this shows also what is read and thrown away. It runs in a process of its own,
which the first forbidden access ends.
"""

import ctypes
import faulthandler
import itertools
import mmap
import sys

import ml_dtypes
import numpy as np
import pytest
from programs import output_of, run
from tiles import ISAS

from qwenvis import ops

if sys.platform != "linux":
    pytest.skip("protects pages through Linux's mprotect", allow_module_level=True)

READ_WRITE, NOTHING = mmap.PROT_READ | mmap.PROT_WRITE, 0
MPROTECT = ctypes.CDLL(None, use_errno=True).mprotect


class Edge:
    """Makes arrays whose end, or whose beginning, is the edge of the memory."""

    def __init__(self, at_end):
        self.at_end = at_end

    def __call__(self, values):
        values = np.ascontiguousarray(values)
        pages = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(-1, pages + 2 * mmap.PAGESIZE, prot=READ_WRITE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (address, address + mmap.PAGESIZE + pages):
            if MPROTECT(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), NOTHING):
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


@pytest.mark.parametrize("at_end", [True, False], ids=["behind the end", "before the beginning"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
def test_nothing_is_touched(isa, threads, at_end):
    output_of(f"import test_bounds; test_bounds.run_all({isa!r}, {threads}, {at_end})")


@pytest.mark.parametrize(("at_end", "inside", "outside"), [(True, 6, 7), (False, 0, -1)])
def test_one_float_too_far_ends_the_process(at_end, inside, outside):
    read = f"""
    import ctypes, test_bounds
    array = test_bounds.Edge({at_end}).random(7)
    ctypes.c_float.from_address(array.ctypes.data + 4 * {{}}).value
    """
    output_of(read.format(inside))
    assert run(read.format(outside)).returncode < 0


def test_arrays_at_the_edge_hold_what_they_should():
    values = np.arange(5000, dtype=np.float32).reshape(50, 100)
    for at_end in (True, False):
        np.testing.assert_array_equal(Edge(at_end)(values), values)
