"""Nothing beyond an array is read or written: each array of each op ends, or begins, at a page that nobody may touch.

Poison shows what is read and used; this shows also what is read and thrown away.
"""

import sys

import numpy as np
import pytest

from made.tile_sizes import ISAS
from processes import guard_pages
from processes.programs import output, run

if sys.platform != "linux":
    pytest.skip("protects pages through Linux's mprotect", allow_module_level=True)


@pytest.mark.parametrize("at_end", [True, False], ids=["behind the end", "before the beginning"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
def test_nothing_is_touched(isa, threads, at_end):
    output(f"from processes import guard_pages; guard_pages.run_all({isa!r}, {threads}, {at_end})")


@pytest.mark.parametrize(("at_end", "inside", "outside"), [(True, 6, 7), (False, 0, -1)])
def test_one_float_too_far_ends_the_process(at_end, inside, outside):
    read = f"""
    import ctypes
    from processes import guard_pages
    array = guard_pages.Edge({at_end}).random(7)
    ctypes.c_float.from_address(array.ctypes.data + 4 * {{}}).value
    """
    output(read.format(inside))
    assert run(read.format(outside)).returncode < 0


def test_arrays_at_the_edge_hold_what_they_should():
    values = np.arange(5000, dtype=np.float32).reshape(50, 100)
    for at_end in (True, False):
        np.testing.assert_array_equal(guard_pages.Edge(at_end)(values), values)
