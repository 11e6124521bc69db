"""The results of a job, read lazily."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, SupportsIndex

import numpy as np

from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError, counted, shown
from qwenvis.io.files import expanded, given_path, reason
from qwenvis.jobs.folder import Folder
from qwenvis.jobs.formats import FORMATS
from qwenvis.jobs.manifest import Manifest, Records, Tables
from qwenvis.jobs.settings import Settings

OPEN_SHARDS = 32  # that are mapped at the same time: each holds a file descriptor


class Results:
    """The tokens of a job: a sequence with one `Embeddings` of one item for each image and video that was encoded.

    ``len(results)`` is the number of items with tokens. ``results[7]``, ``results["photos/cat.jpg"]`` and iteration
    read an item, in the order of the job; its arrays are mapped into memory, and read-only. ``"x.jpg" in results``
    tells whether an item has tokens. Of a job that is not complete, the results are those that exist when it is opened.
    A pickle holds the path.

    - ``complete``: whether every item of the job has been tried.
    """

    complete: bool

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Open the directory of a job. Raises InputError if it is none."""
        self._folder = Folder(expanded(str(given_path(directory, "directory"))))
        place = shown(str(self._folder.directory))
        try:
            present = self._folder.job.is_file()
        except OSError as error:
            raise InputError(f"{place} cannot be read: {reason(error)}") from error
        if not present:
            raise InputError(f"{place} holds no job: it has no {self._folder.job.name}")
        settings = Settings.load(self._folder.job)
        self.complete = self._folder.manifest.is_file() and self._folder.index.is_file()
        self._records: Records = Manifest(self._folder) if self.complete else Tables(self._folder)
        self._shard: Callable[[str], tuple[Embeddings, np.ndarray]] = lru_cache(OPEN_SHARDS)(self._read)
        self._format = FORMATS[settings.settings["to"]]

    def __len__(self) -> int:
        """Return the number of items with tokens."""
        return len(self._records.encoded)

    def __getitem__(self, key: SupportsIndex | str) -> Embeddings:
        """Return the item of a number or a name.

        Raises IndexError, KeyError for a name that is not in the job, and InputError for an item that could not be
        encoded, with the reason, or whose shard cannot be read.
        """
        record = self.record(key)
        if record["error"]:
            raise InputError(f"{shown(record['source'])} has no tokens: {record['error']}")
        items, ends = self._shard(record["shard"])
        item = items[min(int(np.searchsorted(ends, record["offset"], side="right")), len(items) - 1)]
        if item.keys != [record["key"]]:  # a run has replaced the shard, and not its table yet
            raise InputError(f"{shown(record['shard'])} does not fit its table: open the job again, or run it again")
        return item

    def __iter__(self) -> Iterator[Embeddings]:
        """Yield the items with tokens, in order."""
        return (self[number] for number in range(len(self)))

    def __contains__(self, source: object) -> bool:
        """Return whether an item of this name has tokens."""
        number = self._records.find(source) if isinstance(source, str) else None
        return number is not None and not self._records[number]["error"]

    def record(self, key: SupportsIndex | str) -> dict[str, Any]:
        """Return the line of the manifest of an item, by number among the items with tokens, or by any item's name.

        Raises IndexError or KeyError.
        """
        if isinstance(key, str):
            number = self._records.find(key)
            if number is None:
                raise KeyError(f"{key!r} is not an item of {self._folder.directory}")
            return self._records[number]
        return self._records[int(self._records.encoded[operator.index(key)])]

    @property
    def sources(self) -> list[str]:
        """The names of the items with tokens, in order; reads the whole manifest."""
        return [self._records[number]["source"] for number in self._records.encoded.tolist()]

    @property
    def errors(self) -> dict[str, str]:
        """The reason of each item that could not be encoded, by name."""
        failed = np.setdiff1d(np.arange(len(self._records)), self._records.encoded)
        return {record["source"]: record["error"] for record in map(self._records.__getitem__, failed.tolist())}

    def __repr__(self) -> str:
        """Directory, number of items, and of those that failed."""
        failed = len(self._records) - len(self)
        state = f"{counted(len(self), 'item')}, {failed:,} failed" + ("" if self.complete else ", not complete")
        return f"<Results: {shown(str(self._folder.directory))!r}, {state}>"

    def __reduce__(self) -> tuple[Callable[[str], Results], tuple[str]]:
        """Pickle the path."""
        return type(self), (str(self._folder.directory),)

    def _read(self, shard: str) -> tuple[Embeddings, np.ndarray]:
        """Return the items of a shard, and the row of the tokens at which each ends."""
        items = self._format.read(self._folder.directory / shard)
        return items, np.cumsum(items.counts)


def open(directory: str | os.PathLike[str]) -> Results:
    """Open the directory of a job, whose results are read when they are asked for.

    Raises InputError if it holds no job.
    """
    return Results(directory)
