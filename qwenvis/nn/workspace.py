"""Scratch arrays of a forward pass, by name, reused from call to call."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from qwenvis.ops import cache_line

# name -> (rows, columns, dtype): float32, or uint16, which holds bfloat16
Size = tuple[int, int, str]
Sizes = Mapping[str, Size]


class Workspace:
    """Arrays (rows, columns) as attributes ``ws.name``: the scratch memory of one forward pass at a time.

    The ``sizes`` of a layer say what each of its arrays holds.
    """

    def __init__(self) -> None:
        self._memory: dict[str, np.ndarray] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, sizes: Sizes) -> Workspace:
        """Give every array exactly its size. Memory is reallocated only where an array has outgrown it."""
        self._arrays = {}
        for name, size in sizes.items():
            if name not in self._memory or self._memory[name].size < _nbytes(size):
                self._memory.pop(name, None)
                self._memory[name] = np.empty(_nbytes(size), np.uint8)
            rows, columns, dtype = size
            memory = self._memory[name]
            start = -memory.ctypes.data % cache_line
            whole = memory[start : start + rows * _pitch(size)].view(dtype)
            self._arrays[name] = whole.reshape(rows, _pitch(size) // whole.itemsize)[:, :columns]
        return self

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["_arrays"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(f"the workspace has no array {name!r}") from None


class Workspaces:
    """A workspace for each of the calls that run at the same time, kept for later calls."""

    def __init__(self) -> None:
        self._free: deque[Workspace] = deque()  # without a lock, which a fork could leave held for ever

    @contextmanager
    def one(self) -> Iterator[Workspace]:
        """Lend a workspace that no other call uses meanwhile."""
        try:
            ws = self._free.pop()
        except IndexError:
            ws = Workspace()
        try:
            yield ws
        finally:
            self._free.append(ws)


def nbytes(*sizes: Sizes) -> int:
    """Return the bytes of a workspace after a `fit` to each of these sizes."""
    names = {name for each in sizes for name in each}
    return sum(max(_nbytes(each[name]) for each in sizes if name in each) for name in names)


def _pitch(size: Size) -> int:
    """Return the bytes from row to row: whole cache lines, and one more.

    If the pitch were a power of two, all rows of a tile would fall into one set of the L1 cache.
    """
    _, columns, dtype = size
    return -(-columns * np.dtype(dtype).itemsize // cache_line) * cache_line + cache_line


def _nbytes(size: Size) -> int:
    return size[0] * _pitch(size) + cache_line
