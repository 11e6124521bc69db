"""Scratch arrays of a forward pass, by name; they are reused from call to call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# A row ends a cache line later than its values: with a pitch of a power of two, all rows of a tile would fall into one
# set of the L1 cache.
PAD = 16

Sizes = Mapping[str, tuple[int, int]]


class Workspace:
    """Named float32 arrays ``ws.name`` of (rows, columns); the memory of one forward pass, so one per call at a time.

    What each name holds is said where a tower lists its sizes.
    """

    def __init__(self) -> None:
        self._memory: dict[str, np.ndarray] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def fit(self, sizes: Sizes) -> Workspace:
        """Make every array exactly as large as asked; memory grows where it must and is kept otherwise."""
        self._arrays = {}
        for name, (rows, columns) in sizes.items():
            size = rows * (columns + PAD)
            if name not in self._memory or self._memory[name].size < size:
                self._memory.pop(name, None)
                self._memory[name] = np.empty(size, np.float32)
            self._arrays[name] = self._memory[name][:size].reshape(rows, columns + PAD)[:, :columns]
        return self

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["_arrays"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(f"the workspace has no array {name!r}") from None


def nbytes(sizes: Sizes) -> int:
    """Bytes that a workspace of these sizes takes."""
    return sum(4 * rows * (columns + PAD) for rows, columns in sizes.values())
