"""Objects with several readers: a file object that is read at many positions at once, a PIL image in many threads.

A caller may pass one object twice, or to two calls at the same time. So no reader relies on the position of a file
object: each has a view with a position of its own. Operations that change the shared object run under its lock.

There is a fixed number of locks, and the identity of an object chooses its lock: nothing is registered, so nothing has
to be removed. Two objects may share a lock, which costs time only: a thread holds at most one lock of each kind, and
always in the same order, first that of an image, then that of its file.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from PIL import Image

LOCKS = 1021  # a prime: addresses are multiples of 16

BUFFER = 1 << 16  # bytes of a view that are read at once; Pillow's decoders ask for as many

# Where wrappers keep what they wrap: buffered files, gzip and tar, temporary files, bz2 and lzma.
_WRAPPED = ("raw", "fileobj", "file", "_file", "_fp")
_DEEPEST = 8  # wrappers in one another

_images: list[threading.RLock] = []
_files: list[threading.RLock] = []


def _renew() -> None:
    """New locks: in the child of a fork, the old ones may be held by threads that are not there."""
    for locks in (_images, _files):
        locks[:] = [threading.RLock() for _ in range(LOCKS)]


_renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def alone(image: Image.Image) -> Iterator[None]:
    """Lock an image, and the file that it is loaded from: no other thread loads it, or reads that file, meanwhile."""
    with _images[id(image) % LOCKS]:
        file = getattr(image, "fp", None)
        if file is None:
            yield
        else:
            with _files[_identity(file) % LOCKS]:
                _forget(file)
                yield


def view(source: Any) -> BinaryIO:
    """View a file object that can be rewound as a file at its start; the position of the source does not matter.

    A source that can be read at any position (a file of the operating system, an `io.BytesIO`) needs no lock, and keeps
    its position. Other sources are moved and read under their locks. Closing a view leaves the source open.
    """
    if type(source) is io.BytesIO:
        return io.BytesIO(source.getvalue())  # which share the bytes until the source is written to
    file = _system_file(source)
    if file is None or not hasattr(os, "pread"):
        return cast(BinaryIO, io.BufferedReader(_Moved(source), BUFFER))
    if isinstance(source, io.BufferedRandom):
        source.flush()
    return cast(BinaryIO, io.BufferedReader(_Placed(file), BUFFER))


class _View(io.RawIOBase):
    """A file with a position of its own."""

    def __init__(self) -> None:
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence)
        place = offset + (self._end() if start is None else start)
        if place < 0:
            raise ValueError(f"negative seek position {place}")
        self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        data = self._at(self._place, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def readall(self) -> bytes:
        parts = []
        while part := self.read(1 << 20):
            parts.append(part)
        return b"".join(parts)

    def _at(self, place: int, count: int) -> bytes:
        """At most ``count`` bytes from a position; none at the end."""
        raise NotImplementedError

    def _end(self) -> int:
        raise NotImplementedError


class _Placed(_View):
    """A view of a file of the operating system: a read names its position, and moves nothing."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file

    def _at(self, place: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, place)

    def _end(self) -> int:
        return os.fstat(self._file.fileno()).st_size


class _Moved(_View):
    """A view of any other file object, which is moved and read under its lock."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self._source, self._identity = source, _identity(source)

    def _at(self, place: int, count: int) -> bytes:
        with _files[self._identity % LOCKS]:
            _forget(self._source)
            self._source.seek(place)
            data: bytes = self._source.read(count)
        return data

    def _end(self) -> int:
        with _files[self._identity % LOCKS]:
            self._source.seek(0, os.SEEK_END)
            end: int = self._source.tell()
        return end


def _system_file(source: Any) -> io.FileIO | None:
    """The file of the operating system that a source reads, None for other sources: a subclass may read anything."""
    file = source.raw if type(source) in (io.BufferedReader, io.BufferedRandom) else source
    return file if type(file) is io.FileIO else None


def _forget(file: Any) -> None:
    """Make a buffered file drop its buffer: another file object over the same raw file may have moved it since."""
    if isinstance(file, io.BufferedReader | io.BufferedRandom) and not file.closed:
        file.seek(0, os.SEEK_END)  # of all seeks the only kind that always reaches the raw file


def _identity(source: Any) -> int:
    """A number for the underlying file, the same for all wrappers and all duplicates of a file object."""
    for _ in range(_DEEPEST):
        inner = (getattr(source, name, None) for name in _WRAPPED)
        source = next((found for found in inner if hasattr(found, "read")), source)
    if type(source) is io.FileIO and not source.closed:
        status = os.fstat(source.fileno())
        return hash((status.st_dev, status.st_ino))
    return id(source)
