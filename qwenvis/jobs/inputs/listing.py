"""The inputs of a job, listed: files, directories, globs, lists of names, and containers of many items.

Nothing is decoded. Memory holds the names of one directory at a time.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from qwenvis.errors import InputError, quoted, shown
from qwenvis.io.files import open_regular, reason
from qwenvis.jobs.inputs import containers
from qwenvis.jobs.inputs.entries import Entry, wanted

CONTAINERS = {".jsonl": containers.jsonl, ".parquet": containers.parquet, ".tar": containers.tar}
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True)
class Listing:
    """The inputs as they are given: iteration yields an `Entry` for each item, in an order that is always the same.

    - ``inputs``: each a file, a directory, a glob, ``@FILE`` (a name in each line), ``-`` (names on standard input), or
      a ``.jsonl``, ``.parquet`` or ``.tar`` file.
    - ``include``: patterns for the files of directories and tars; by default, suffixes of images and videos.
    - ``column``: the column of Parquet files.
    - ``without``: a directory that is not entered: that of the results.
    """

    inputs: Sequence[str]
    include: tuple[str, ...] = ()
    column: str | None = None
    without: Path | None = None

    def __iter__(self) -> Iterator[Entry]:
        """Yield the items.

        Raises InputError for an input that does not exist or cannot be listed, and PackageError without pyarrow.
        """
        self.refuse_missing()
        for given in self.inputs:
            found = False
            for entry in self._listed(given):
                found = True
                yield entry
            if not found:
                raise InputError(f"{shown(given)} names no image or video{self._hint(given)}")

    def refuse_missing(self) -> None:
        """Raise InputError for an input that does not exist, and if there is none."""
        if not self.inputs:
            raise InputError("there are no inputs; expected files, directories or lists of names")
        for given in self.inputs:
            path = Path(given.removeprefix("@"))
            with _in_words(given):
                missing = given != "-" and not glob.has_magic(given) and not path.exists()
            if missing:
                raise InputError(f"{shown(given)}: there is no such file or directory")

    def _listed(self, given: str) -> Iterator[Entry]:
        if given == "-":
            yield from chain.from_iterable(map(self._entries_of, _names(sys.stdin.buffer)))
        elif given.startswith("@"):
            yield from chain.from_iterable(map(self._entries_of, names_in(given[1:])))
        elif Path(given).is_dir():
            yield from map(Entry, self._walk(given, given))
        elif Path(given).exists() or not glob.has_magic(given):
            yield from self._entries_of(given)
        else:
            yield from chain.from_iterable(map(self._entries_of, self._matches(given)))

    def _matches(self, pattern: str) -> Iterator[str]:
        """Yield the files that match a pattern, sorted."""

        @cache
        def entered(directory: str) -> bool:
            return self.without is None or not Path(directory).resolve().is_relative_to(self.without)

        # Path.glob drops ./ and takes no absolute pattern.
        for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
            if not Path(path).is_dir() and entered(os.path.dirname(path)):  # noqa: PTH120  faster than a Path
                yield path

    def _entries_of(self, path: str) -> Iterator[Entry]:
        """Yield the items of a container, or the file itself, which is not touched."""
        lowered = path.lower()
        kind = CONTAINERS.get(lowered[lowered.rfind(".") :])
        if lowered.endswith(COMPRESSED):
            raise InputError(f"{shown(path)} is compressed, so its items cannot be read by themselves; decompress it")
        if kind is None:
            yield Entry(path)
        else:
            yield from kind(path, self.include, self.column)

    def _walk(self, root: str, directory: str) -> Iterator[str]:
        """Yield the files below a directory, sorted by name in each directory; hidden ones are left out."""
        with _in_words(directory), os.scandir(directory) as entries:
            found = sorted((each.name, each.path, each.is_dir(follow_symlinks=False)) for each in entries)
        for name, path, is_directory in found:
            if name.startswith("."):
                continue
            if is_directory:
                if self.without is None or Path(path).resolve() != self.without:
                    yield from self._walk(root, path)
            elif wanted(path[len(root) :].lstrip(os.sep), self.include):
                yield path

    def _hint(self, given: str) -> str:
        if Path(given).is_dir() and not self.include:
            return ": no file in it has a known suffix; choose files with include patterns such as '*.img'"
        return ""


def holds_many(given: str) -> bool:
    """Return whether an input is one that only jobs read: for any number of items, and no list ``@FILE``."""
    path = Path(given)
    pattern = glob.has_magic(given) and not path.exists()
    return pattern or given == "-" or path.suffix.lower() in CONTAINERS or path.is_dir()


def names_in(path: str) -> Iterator[str]:
    """Yield the names in the lines of a file. Raises InputError if it cannot be read."""
    with _in_words(path), open_regular(path) as file:
        yield from _names(file)


def _names(lines: Iterable[bytes]) -> Iterator[str]:
    return (os.fsdecode(name) for line in lines if (name := line.rstrip(b"\r\n")))


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    """Raise InputError for an OSError, and for a name that cannot be a path."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{quoted(path)} cannot be read: {reason(error)}") from error
