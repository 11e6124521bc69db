"""Share objects between readers: a file object read at several positions, a PIL image used by several threads.

A caller may pass one object twice, or to two concurrent calls. So no reader relies on the position of a file object:
each reader has a view with its own position. Operations that change the shared object hold its lock.

The number of locks is fixed, and the identity of an object selects its lock, so that nothing is registered or removed.
Two objects may share a lock, which only costs time: a thread holds at most one lock of each kind, first the lock of an
image, then the lock of its file.
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

BUFFER = 1 << 16  # bytes per read of a view; Pillow's decoders read as many

# Attributes in which wrappers keep the wrapped file: buffered files, gzip and tar, temporary files, bz2 and lzma.
_WRAPPED = ("raw", "fileobj", "file", "_file", "_fp")
_DEEPEST = 8  # levels of nested wrappers

_images: list[threading.RLock] = []
_files: list[threading.RLock] = []


def _create_locks() -> None:
    """Create all locks; in the child of a fork, threads that no longer exist may hold the old locks."""
    for locks in (_images, _files):
        locks[:] = [threading.RLock() for _ in range(LOCKS)]


_create_locks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_create_locks)


@contextmanager
def locked(image: Image.Image) -> Iterator[None]:
    """Lock an image and its file against loading and reading by other threads."""
    with _images[id(image) % LOCKS]:
        file = getattr(image, "fp", None)
        if file is None:
            yield
        else:
            with _files[_identity(file) % LOCKS]:
                _drop_buffer(file)
                yield


def view(source: Any) -> BinaryIO:
    """View a seekable file object as a file at its start, whatever the position of the source.

    A source with positional reads (a file of the operating system, an `io.BytesIO`) needs no lock, and its position
    stays. Any other source is moved and read under its lock. Closing a view leaves the source open.
    """
    if type(source) is io.BytesIO:
        return io.BytesIO(source.getvalue())  # both share the bytes until the source is written to
    file = _system_file(source)
    if file is None or not hasattr(os, "pread"):
        return cast(BinaryIO, io.BufferedReader(_LockedView(source), BUFFER))
    if isinstance(source, io.BufferedRandom):
        source.flush()
    return cast(BinaryIO, io.BufferedReader(_PreadView(file), BUFFER))


class _View(io.RawIOBase):
    """A raw file with its own position."""

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
        """Read at most ``count`` bytes at a position; no bytes at the end."""
        raise NotImplementedError

    def _end(self) -> int:
        raise NotImplementedError


class _PreadView(_View):
    """A view of a file of the operating system, by positional reads."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file

    def _at(self, place: int, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, place)

    def _end(self) -> int:
        return os.fstat(self._file.fileno()).st_size


class _LockedView(_View):
    """A view of any other file object, which is moved and read under its lock."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self._source, self._identity = source, _identity(source)

    def _at(self, place: int, count: int) -> bytes:
        with _files[self._identity % LOCKS]:
            _drop_buffer(self._source)
            self._source.seek(place)
            data: bytes = self._source.read(count)
        return data

    def _end(self) -> int:
        with _files[self._identity % LOCKS]:
            self._source.seek(0, os.SEEK_END)
            end: int = self._source.tell()
        return end


def _system_file(source: Any) -> io.FileIO | None:
    """Return the file of the operating system behind a source, or None; subclasses may read anything else."""
    file = source.raw if type(source) in (io.BufferedReader, io.BufferedRandom) else source
    return file if type(file) is io.FileIO else None


def _drop_buffer(file: Any) -> None:
    """Drop the buffer of a buffered file, because another file object may have moved the shared raw file."""
    if isinstance(file, io.BufferedReader | io.BufferedRandom) and not file.closed:
        file.seek(0, os.SEEK_END)  # the only kind of seek that always reaches the raw file


def _identity(source: Any) -> int:
    """Return a number for the underlying file, equal for all wrappers and duplicates of a file object."""
    for _ in range(_DEEPEST):
        inner = (getattr(source, name, None) for name in _WRAPPED)
        source = next((found for found in inner if hasattr(found, "read")), source)
    if type(source) is io.FileIO and not source.closed:
        status = os.fstat(source.fileno())
        return hash((status.st_dev, status.st_ino))
    return id(source)
