"""Named scratch arrays: their shapes, what is kept, what is promised about their memory."""

import numpy as np
import pytest

from qwenvis.nn.workspace import Workspace, nbytes
from qwenvis.ops import cache_line


def owner(array):
    while array.base is not None:
        array = array.base
    return array


def test_arrays_are_as_asked():
    ws = Workspace().fit({"x": (3, 1280, "float32"), "one": (1, 1, "float32")})
    assert (ws.x.shape, ws.one.shape) == ((3, 1280), (1, 1))
    assert ws.x.dtype == np.float32
    assert ws.x.strides == (4 * 1280 + cache_line, 4)


def test_arrays_do_not_overlap():
    ws = Workspace().fit({"a": (4, 5, "float32"), "b": (4, 5, "float32")})
    ws.a[:], ws.b[:] = 1, 2
    assert (ws.a == 1).all()


def test_memory_is_reused():
    ws = Workspace().fit({"x": (10, 20, "float32")})
    before = owner(ws.x)
    for sizes in [(10, 20), (3, 20), (1, 200), (9, 20)]:
        assert ws.fit({"x": (*sizes, "float32")}).x.shape == sizes
        assert owner(ws.x) is before, sizes


def test_memory_grows_where_it_must():
    ws = Workspace().fit({"x": (10, 20, "float32"), "y": (10, 20, "float32")})
    x, y = owner(ws.x), owner(ws.y)
    ws.fit({"x": (11, 20, "float32"), "y": (10, 20, "float32")})
    assert owner(ws.x) is not x
    assert owner(ws.y) is y


def test_only_what_was_asked_last_is_there():
    ws = Workspace().fit({"x": (2, 2, "float32"), "y": (2, 2, "float32")})
    y = owner(ws.y)
    ws.fit({"x": (2, 2, "float32")})
    with pytest.raises(AttributeError, match="the workspace has no array 'y'"):
        _ = ws.y
    assert owner(ws.fit({"y": (2, 2, "float32")}).y) is y


def test_new_workspace_is_empty():
    with pytest.raises(AttributeError, match="no array 'x'"):
        _ = Workspace().x


def test_no_rows():
    assert Workspace().fit({"x": (0, 7, "float32")}).x.shape == (0, 7)


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 100, 101, 1024])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_rows_begin_with_a_cache_line(columns, dtype):
    """And never a power of two apart, where all rows of a tile would fall into one set of the L1 cache."""
    ws = Workspace().fit({"x": (3, columns, dtype)})
    assert ws.x.ctypes.data % cache_line == 0
    pitch = ws.x.strides[0]
    assert pitch % cache_line == 0
    assert pitch - columns * ws.x.itemsize >= cache_line
    assert pitch & (pitch - 1) or pitch < 1024


def test_bytes_are_those_of_the_memory():
    sizes = {"x": (10, 20, "float32"), "y": (3, 1, "float32"), "none": (0, 5, "float32")}
    ws = Workspace().fit(sizes)
    assert nbytes(sizes) == sum(owner(getattr(ws, name)).nbytes for name in sizes)


def test_two_bytes_an_entry():
    ws = Workspace().fit({"x": (3, 100, "uint16")})
    assert (ws.x.dtype, ws.x.shape, ws.x.strides) == (np.uint16, (3, 100), (256 + cache_line, 2))
