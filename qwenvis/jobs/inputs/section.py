"""A part of a file as a file of its own: a member of a tar that is too large to be held in memory."""

from __future__ import annotations

import io
import os
from typing import Any

from qwenvis.io.files import open_regular


class Section(io.RawIOBase):
    """The bytes of a file from ``offset`` on, ``length`` of them, under a ``name``. It has its own descriptor."""

    def __init__(self, path: str, offset: int, length: int, name: str) -> None:
        """Open the file. Raises OSError."""
        super().__init__()
        self.name, self._file = name, open_regular(path)
        self._offset, self._length, self._place = offset, length, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; return the new one."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence, self._length)
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read at the position, not beyond the section; return the number of bytes."""
        self._file.seek(self._offset + self._place)
        left = max(0, self._length - self._place)
        count = self._file.readinto(memoryview(buffer)[:left])
        self._place += count
        return count

    def close(self) -> None:
        """Close the descriptor."""
        self._file.close()
        super().close()
