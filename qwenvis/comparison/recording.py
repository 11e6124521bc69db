"""Arrays that wait in a file, so that memory need not hold them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


class Recording:
    """Float32 arrays by key, in an empty ``file`` that is open for reading and writing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[Hashable, tuple[int, tuple[int, ...]]] = {}

    def write(self, key: Hashable, array: NDArray[np.float32]) -> None:
        """Append a C-contiguous array."""
        self._places[key] = self._file.seek(0, 2), array.shape
        self._file.write(array.data)

    def read(self, key: Hashable) -> NDArray[np.float32] | None:
        """Return the array of a key, or None if none was written."""
        if key not in self._places:
            return None
        offset, shape = self._places[key]
        self._file.seek(offset)
        return np.fromfile(self._file, np.float32, int(np.prod(shape))).reshape(shape)
