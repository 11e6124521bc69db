"""A directory with one file for each item, named after the key of the item, within a bound."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, SupportsIndex

from qwenvis.cache.file import read, write
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.file import read_header
from qwenvis.errors import CacheWarning, InputError, checked_integer, quoted, shown
from qwenvis.io.drafts import remove_abandoned
from qwenvis.io.files import expanded, given_path, reason

MAX_BYTES = 10_000_000_000
STEP = 16  # a process scans the directory whenever it has written 1/STEP of the bound
ABANDONED = 3600  # seconds after which a draft has no writer any more: writing an item takes less than a second

_SUFFIX = ".safetensors"
_NAME = re.compile(rf"([0-9a-f]{{64}}){re.escape(_SUFFIX)}")


@dataclass(frozen=True)
class CacheItem:
    """An item of a cache, as its file and the header of this file describe it.

    - ``key``: the key of the item, 64 hexadecimal digits.
    - ``nbytes``: the size of the file in bytes.
    - ``used``: the time when it was last read or written, in seconds since the epoch.
    - ``tokens``, ``source``: its number of tokens, and its name in the call that encoded it; None if the header is
      damaged.
    """

    key: str
    nbytes: int
    used: float
    tokens: int | None
    source: str | None


class _File(NamedTuple):
    """The file of an item. Files sort by their last use."""

    used: int  # nanoseconds since the epoch
    nbytes: int
    key: str


class Cache:
    """A directory with the tokens of items that were encoded before, by key; processes and threads may share it.

    ``len(cache)`` is the number of items, and iteration yields a `CacheItem` for each, the least recently used first.
    When the files exceed the bound, the least recently used are removed. While P processes write at the same time, the
    files may take up to (P - 1) / 16 more than the bound. A pickle holds the path and the bound (docs/cache.md).

    - ``directory``: the absolute path of the directory.
    - ``max_bytes``: the bound for the sizes of all files together.
    """

    directory: Path
    max_bytes: int

    def __init__(self, directory: str | os.PathLike[str], max_bytes: SupportsIndex = MAX_BYTES) -> None:
        """Use a directory, which is created if it does not exist. A read-only directory serves the items that it holds.

        Raises InputError if the directory cannot be created or read, if it is empty and cannot be written, or if
        ``max_bytes`` is not a positive integer.
        """
        self.max_bytes = checked_integer(max_bytes, "max_bytes", 1)
        self.directory = _usable(directory)
        # The bytes that the last scan found, and those of each item that this process has written since then. Threads
        # append to the list without a lock.
        self._found: int | None = None
        self._written: list[int] = []

    @classmethod
    def of(cls, cache: Cache | str | os.PathLike[str] | None) -> Cache | None:
        """Return a cache or None as it is, and a directory as a `Cache`. Raises InputError for anything else."""
        return cache if isinstance(cache, Cache | None) else cls(cache)

    def get(self, key: str) -> Embeddings | None:
        """Return the item of a key, with the bits that `put` received, or None if the cache does not hold it.

        A file that is damaged, or holds anything else, counts as absent. Raises InputError for a key that is not 64
        hexadecimal digits.
        """
        path = self._path(key)
        item = read(path, key)
        if item is not None:
            with suppress(OSError):  # read-only, or removed by another process
                os.utime(path)
        return item

    def put(self, key: str, item: Embeddings) -> None:
        """Store one item under its key, in place of what has that key, and remove others if the bound demands it.

        Everything is stored except ``hidden_states`` and ``errors``. An item that is larger than the bound is not
        stored. If the file cannot be written, a CacheWarning says why.

        Raises InputError for a key that is not 64 hexadecimal digits, and unless ``item`` is one item that passes
        `Embeddings.check`.
        """
        path = self._path(key)
        if not isinstance(item, Embeddings) or len(item) != 1:
            got = quoted(item) if isinstance(item, Embeddings) else f"a {type(item).__name__}"
            raise InputError(f"a cache stores Embeddings of one item under a key; got {got}")
        if sum(array.nbytes for array in (item.embeddings, *item.deepstack)) > self.max_bytes:
            return
        try:
            nbytes = write(path, key, item)
            if nbytes > self.max_bytes:  # with its header
                path.unlink(missing_ok=True)
            else:
                self._count(key, nbytes)
        except (OSError, InputError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            text = f"the cache {shown(str(self.directory))} cannot be written, so new tokens are not kept"
            warnings.warn(f"{text}: {reason(cause)}", CacheWarning, stacklevel=2)

    def prune(self, max_bytes: SupportsIndex | None = None) -> int:
        """Remove the least recently used items until the files take ``max_bytes`` (default: the bound) or less.

        With 0, all items are removed. What killed writers have left is removed too, after an hour. Returns the number
        of items removed. Raises InputError if ``max_bytes`` is negative or not an integer, or if a file cannot be
        removed.
        """
        bound = self.max_bytes if max_bytes is None else checked_integer(max_bytes, "max_bytes", 0)
        with self._errors_in_words():
            files = self._files()
            return len(files) - len(self._remove_oldest(files, bound))

    def verify(self, remove: bool = False) -> list[str]:
        """Read all items, and return the keys of those that are damaged; with ``remove``, remove their files.

        Raises InputError if the directory cannot be read or a file cannot be removed.
        """
        with self._errors_in_words():
            bad = [key for key in self._keys() if self._is_damaged(key)]
            for key in bad if remove else ():
                self._path(key).unlink(missing_ok=True)
        return bad

    @property
    def nbytes(self) -> int:
        """The sum of the sizes of all files, in bytes."""
        with self._errors_in_words():
            return _total(self._files())

    def __len__(self) -> int:
        """Return the number of items."""
        with self._errors_in_words():
            return len(self._files())

    def __iter__(self) -> Iterator[CacheItem]:
        """Yield all items, the least recently used first; the header of each file is read in its turn."""
        with self._errors_in_words():
            files = self._files()
        for used, nbytes, key in files:
            try:
                tokens, source = read_header(self._path(key))
                yield CacheItem(key, nbytes, used / 1e9, tokens, source)
            except InputError:
                if os.path.lexists(self._path(key)):  # another process may have removed it
                    yield CacheItem(key, nbytes, used / 1e9, None, None)

    def __repr__(self) -> str:
        """Directory and bound."""
        return f"Cache({str(self.directory)!r}, max_bytes={self.max_bytes})"

    def __reduce__(self) -> tuple[type[Cache], tuple[str, int]]:
        """Pickle the path and the bound."""
        return type(self), (str(self.directory), self.max_bytes)

    def _path(self, key: str) -> Path:
        if not isinstance(key, str) or not _NAME.fullmatch(f"{key}{_SUFFIX}"):
            raise InputError(f"key is {quoted(key)}; expected 64 hexadecimal digits in lower case")
        return self.directory / f"{key}{_SUFFIX}"

    def _keys(self) -> list[str]:
        """Return the keys of all names in the directory that an item may have, whatever kind of file has them."""
        return sorted(match[1] for path in self.directory.iterdir() if (match := _NAME.fullmatch(path.name)))

    def _files(self) -> list[_File]:
        """Return the files of all items, the least recently used first; one that is removed meanwhile is left out."""
        found = []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if (match := _NAME.fullmatch(entry.name)) and entry.is_file():
                        status = entry.stat()
                        found.append(_File(status.st_mtime_ns, status.st_size, match[1]))
        return sorted(found)

    def _is_damaged(self, key: str) -> bool:
        path = self._path(key)
        # Twice, because another process may have removed the file, and then written it again.
        return all(read(path, key) is None and os.path.lexists(path) for _ in range(2))

    def _count(self, key: str, nbytes: int) -> None:
        """Count an item that was written; scan the directory, and remove others, if the bound may be exceeded.

        A process that writes alone knows from its last scan when it reaches the bound. It does not see what others
        write, but each of them scans after a STEP-th of the bound, so no more than that is unseen of each.
        """
        self._written.append(nbytes)
        written, step = sum(self._written), self.max_bytes // STEP
        if self._found is not None and written < step and self._found + written <= self.max_bytes:
            return
        self._written = []  # before the scan: what a thread writes meanwhile may count twice, but never not at all
        others = [file for file in self._files() if file.key != key]
        if nbytes + _total(others) > self.max_bytes:
            others = self._remove_oldest(others, self.max_bytes - step - nbytes)
        self._found = nbytes + _total(others)

    def _remove_oldest(self, files: list[_File], bound: int) -> list[_File]:
        """Remove the first files until the others take ``bound`` bytes or less; return the others."""
        remove_abandoned(self.directory, ABANDONED)
        left, first = _total(files), 0
        while left > bound and first < len(files):
            self._path(files[first].key).unlink(missing_ok=True)
            left -= files[first].nbytes
            first += 1
        return files[first:]

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        """Raise InputError for an OSError."""
        try:
            yield
        except OSError as error:
            place = shown(str(error.filename or self.directory))
            raise InputError(f"the cache {place} cannot be used: {reason(error)}") from error


def _usable(directory: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a directory that can be written, or read and not empty; create it if need be."""
    if isinstance(directory, str | bytes) and not directory:  # which would be the current directory
        raise InputError(f"the directory of a cache is {quoted(directory)}; expected a path")
    path = expanded(str(given_path(directory, "the directory of a cache")))
    name = f"the cache {shown(str(path))}"
    try:
        path = path.absolute()
        path.mkdir(parents=True, exist_ok=True)
        empty = not any(path.iterdir())
    except FileExistsError:
        raise InputError(f"{name} is not a directory") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be used: {reason(error)}") from error
    if empty and not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{name} is empty and cannot be written")
    return path


def _total(files: Iterable[_File]) -> int:
    return sum(file.nbytes for file in files)
