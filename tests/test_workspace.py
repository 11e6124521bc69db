"""Named scratch arrays: their shapes, what is kept, what is promised about their memory."""

import numpy as np
import pytest

from qwenvis.workspace import PAD_BYTES, Workspace, nbytes


def owner(array):
    while array.base is not None:
        array = array.base
    return array


def test_arrays_are_as_asked():
    ws = Workspace().fit({"x": (3, 1280, "float32"), "one": (1, 1, "float32")})
    assert (ws.x.shape, ws.one.shape) == ((3, 1280), (1, 1))
    assert ws.x.dtype == np.float32
    assert ws.x.strides == (4 * 1280 + PAD_BYTES, 4)


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


def test_pad_is_a_cache_line():
    """A pitch of a power of two would let all rows of a tile fall into one set of the L1 cache."""
    assert PAD_BYTES == 64


def test_bytes_are_those_of_the_memory():
    sizes = {"x": (10, 20, "float32"), "y": (3, 1, "float32"), "none": (0, 5, "float32")}
    ws = Workspace().fit(sizes)
    assert nbytes(sizes) == sum(owner(getattr(ws, name)).nbytes for name in sizes)


def test_two_bytes_an_entry():
    ws = Workspace().fit({"x": (3, 100, "uint16")})
    assert (ws.x.dtype, ws.x.shape, ws.x.strides) == (np.uint16, (3, 100), (2 * 100 + PAD_BYTES, 2))
