"""The manifest of a complete job, all tables joined, and its index: the line of each item by number and by name."""

from __future__ import annotations

import hashlib
import json
import mmap
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from qwenvis.concurrency.memo import cached_property
from qwenvis.errors import InputError, shown
from qwenvis.io.drafts import whole_file
from qwenvis.jobs.folder import Folder
from qwenvis.jobs.formats import mapped
from qwenvis.jobs.parts import Part, Record

# Tensors of the index: where each line begins, and where the last line ends; which lines are of items with tokens; the
# hashes of all names in rising order, and the number of the line of each.
LINES, ENCODED, HASHES, NUMBERS = "lines", "encoded", "hashes", "numbers"


def join(folder: Folder, items: int) -> bool:
    """Write the manifest and its index; return False, and write nothing, unless the tables list all items.

    Raises OSError or InputError.
    """
    lines, encoded, hashes = array("q", [0]), array("q"), array("Q")
    draft = folder.drafts / folder.manifest.name
    position = 0
    with draft.open("w", encoding="ascii") as file:
        for part in _parts(folder):
            if part.first > position:
                break
            for record in part.records:
                line = json.dumps(record) + "\n"
                file.write(line)
                if not record["error"]:
                    encoded.append(len(hashes))
                hashes.append(name_hash(record["source"]))
                lines.append(lines[-1] + len(line))
            position = part.stop
    if position < items:
        draft.unlink()
        return False
    order = np.argsort(np.array(hashes, np.uint64), kind="stable")
    named = {LINES: np.array(lines), ENCODED: np.array(encoded, np.int64), NUMBERS: order}
    index = folder.drafts / folder.index.name
    with whole_file(index) as file_of_index:
        save_file({**named, HASHES: np.array(hashes, np.uint64)[order]}, file_of_index)
    folder.place(draft, folder.manifest)
    folder.place(index, folder.index)
    return True


def name_hash(source: str) -> int:
    """Return 64 bits of a hash of a name. Names with one hash are told apart by their lines."""
    content = source.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _parts(folder: Folder) -> Iterator[Part]:
    """Yield the parts in order, without those that later parts with other limits have replaced in part."""
    stop = 0
    for first in folder.parts():
        if first >= stop:
            part = _loaded(folder.table(first))
            stop = part.stop
            yield part


def _loaded(table: Path) -> Part:
    try:
        return Part.load(table)
    except (OSError, ValueError, TypeError, StopIteration) as error:
        raise InputError(f"{shown(str(table))} cannot be read: {shown(str(error))}") from error


class Records(ABC):
    """The records of a job by their number.

    - ``encoded``: the numbers of the records of items with tokens.
    """

    encoded: NDArray[np.int64]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of records, those of failed items included."""

    @abstractmethod
    def __getitem__(self, number: int) -> Record:
        """Return a record."""

    @abstractmethod
    def find(self, source: str) -> int | None:
        """Return the number of the record of a name, or None."""


class Manifest(Records):
    """The records of a complete job: nothing is read but the lines that are asked for."""

    def __init__(self, folder: Folder) -> None:
        """Map both files. Raises InputError if they do not belong together."""
        arrays, _ = mapped(folder.index)
        try:
            self._lines, self.encoded = arrays[LINES], arrays[ENCODED]
            self._hashes, self._numbers = arrays[HASHES], arrays[NUMBERS]
            with folder.manifest.open("rb") as file:
                self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, KeyError) as error:  # an empty file; or a run that removes the manifest just now
            raise InputError(f"{shown(str(folder.manifest))} cannot be read: {shown(str(error))}") from error
        if len(self._text) != self._lines[-1]:
            raise InputError(f"{shown(str(folder.manifest))} does not fit its index: run the job again")

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self._numbers)

    def __getitem__(self, number: int) -> Record:
        """Parse a line."""
        record: Record = json.loads(self._text[self._lines[number] : self._lines[number + 1]])
        return record

    def find(self, source: str) -> int | None:
        """Look a name up by its hash, in the logarithm of the number of lines."""
        hashed = np.uint64(name_hash(source))
        at = int(np.searchsorted(self._hashes, hashed))
        while at < len(self._hashes) and self._hashes[at] == hashed:
            number = int(self._numbers[at])
            if self[number]["source"] == source:
                return number
            at += 1
        return None


class Tables(Records):
    """The records of a job that is not complete, read from the tables of its parts."""

    def __init__(self, folder: Folder) -> None:
        """Read all tables. Raises InputError if one cannot be read."""
        self._records = [record for part in _parts(folder) for record in part.records]
        self.encoded = np.flatnonzero([not record["error"] for record in self._records])

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._records)

    def __getitem__(self, number: int) -> Record:
        """Return a record."""
        return self._records[number]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {record["source"]: number for number, record in enumerate(self._records)}

    def find(self, source: str) -> int | None:
        """Look a name up."""
        return self._numbers.get(source)
