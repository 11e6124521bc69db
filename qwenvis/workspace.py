"""Scratch arrays of a forward pass, by name; they are reused from call to call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# A row ends a cache line later than its values: with a pitch of a power of two, all rows of a tile would fall into one
# set of the L1 cache.
PAD_BYTES = 64

# name -> (rows, columns, dtype): float32, or uint16, which holds bfloat16
Size = tuple[int, int, str]
Sizes = Mapping[str, Size]


class Workspace:
    """Named arrays ``ws.name`` of (rows, columns); the memory of one forward pass, so one per call at a time.

    What each name holds is said where a tower lists its sizes.
    """

    def __init__(self) -> None:
        self._memory: dict[str, np.ndarray] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, sizes: Sizes) -> Workspace:
        """Make every array exactly as large as asked; memory grows where it must and is kept otherwise."""
        self._arrays = {}
        for name, size in sizes.items():
            if name not in self._memory or self._memory[name].size < _nbytes(size):
                self._memory.pop(name, None)
                self._memory[name] = np.empty(_nbytes(size), np.uint8)
            rows, columns, dtype = size
            pitch = columns + PAD_BYTES // np.dtype(dtype).itemsize
            self._arrays[name] = self._memory[name][: _nbytes(size)].view(dtype).reshape(rows, pitch)[:, :columns]
        return self

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["_arrays"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(f"the workspace has no array {name!r}") from None


def nbytes(sizes: Sizes) -> int:
    """Bytes that a workspace of these sizes takes."""
    return sum(map(_nbytes, sizes.values()))


def _nbytes(size: Size) -> int:
    rows, columns, dtype = size
    return int(rows * (columns * np.dtype(dtype).itemsize + PAD_BYTES))
