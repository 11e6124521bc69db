"""A part of a job: neighbouring items whose tokens are in one shard, with a table that lists the items.

The table is written after its shard, so a part whose table exists is complete, and its table has the hash of the shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from qwenvis.concurrency.tasks import Task
from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError
from qwenvis.jobs.folder import Folder, sha256
from qwenvis.jobs.formats import ShardFormat

Record: TypeAlias = dict[str, Any]  # a line of the manifest


@dataclass(frozen=True)
class Part:
    """The items from ``first`` to ``stop`` of the list of a job.

    - ``shard``: the file of their tokens, relative to the directory of the job; empty if no item could be encoded.
    - ``nbytes``, ``sha256``: its size and hash.
    - ``records``: a line of the manifest for each item.
    """

    first: int
    stop: int
    shard: str = ""
    nbytes: int = 0
    sha256: str = ""
    records: Sequence[Record] = field(default=())

    @classmethod
    def load(cls, table: Path) -> Part:
        """Read a table. Raises OSError or ValueError if it cannot be read."""
        with table.open(encoding="ascii") as lines:
            head = json.loads(next(lines))
            part = cls(**head, records=[json.loads(line) for line in lines])
        if len(part.records) != part.stop - part.first:
            raise ValueError(f"{table} lists {len(part.records)} items; expected {part.stop - part.first}")
        return part

    def save(self, table: Path) -> None:
        """Write the table: a line about the part, and the records. Raises OSError."""
        head = asdict(self)
        del head["records"]
        table.write_text("".join(json.dumps(each) + "\n" for each in (head, *self.records)), encoding="ascii")

    def rows(self) -> Iterable[int | None]:
        """Yield the number of each item in the shard, and None for an item that could not be encoded."""
        row = 0
        for record in self.records:
            yield None if record["error"] else row
            row += not record["error"]


def intact(folder: Folder, first: int) -> Part | None:
    """Return the part that begins at a position, or None unless its shard has the size and the hash of its table."""
    try:
        part = Part.load(folder.table(first))
        if part.shard:
            shard = folder.directory / part.shard
            if shard.stat().st_size != part.nbytes or sha256(shard) != part.sha256:
                return None
    except (OSError, ValueError, TypeError, KeyError, StopIteration):
        return None
    return part if part.first == first else None


class PartWriter:
    """Collects items in their order, and writes a part whenever the next item would exceed the size of a shard."""

    def __init__(self, folder: Folder, format: ShardFormat, provenance: dict[str, str], shard_size: int) -> None:
        self._folder, self._format, self._provenance, self._shard_size = folder, format, provenance, shard_size
        self._records: list[Record] = []
        self._items: list[Embeddings] = []
        self._first = self._nbytes = self._tokens = 0
        self._others: set[int] = set()
        self._writing: Task[None] | None = None

    def begin(self, first: int, others: Iterable[int]) -> None:
        """Begin a gap. The parts that begin at ``others``, unless they are replaced, are removed once it is filled."""
        self._first, self._others = first, set(others)

    def add(self, record: Record, item: Embeddings | None) -> Record:
        """Add the next item, or the record of one that could not be encoded; return its final record.

        Raises the errors of `finish`.
        """
        nbytes = 0 if item is None else sum(array.nbytes for array in (item.embeddings, *item.deepstack))
        if self._items and self._nbytes + nbytes > self._shard_size:
            self._cut()
        if item is not None:
            record = {**record, "shard": self._shard, "offset": self._tokens}
            self._items.append(_alone(item)._with(provenance=self._provenance))
            self._nbytes += nbytes
            self._tokens += len(item.embeddings)
        self._records.append(record)
        return record

    def end(self) -> None:
        """End a gap: write its last part. Raises the errors of `finish`."""
        self._cut(ends=True)

    def finish(self) -> None:
        """Wait until the last part is written. Raises InputError if it cannot be written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            with self._folder.writing():
                writing.result()

    def _cut(self, ends: bool = False) -> None:
        """Write what was collected as a part, in the background, once the part before is written."""
        self.finish()
        stop = self._first + len(self._records)
        part = Part(self._first, stop, self._shard if self._items else "", records=self._records)
        self._others.discard(part.first)
        others = sorted(self._others) if ends else []
        self._writing = Task(partial(self._write, part, self._items, others))
        self._writing.start()
        self._records, self._items, self._first, self._nbytes, self._tokens = [], [], stop, 0, 0

    @property
    def _shard(self) -> str:
        path = self._folder.shard(self._first, f".{self._format.name}")
        return path.relative_to(self._folder.directory).as_posix()

    def _write(self, part: Part, items: list[Embeddings], others: Iterable[int]) -> None:
        """Write the shard, then the table; then remove the files of ``others``, parts that were here before."""
        drafts, table = self._folder.drafts, self._folder.table(part.first)
        if items:
            target = self._folder.directory / part.shard
            draft = drafts / target.name
            joined = Embeddings.concatenate(items)
            items.clear()
            self._format.write(draft, joined)
            part = replace(part, nbytes=draft.stat().st_size, sha256=sha256(draft))
            self._folder.place(draft, target)
        else:
            self._folder.remove_shard(part.first)
        part.save(drafts / table.name)
        self._folder.place(drafts / table.name, table)
        self._folder.remove(others)


def _alone(item: Embeddings) -> Embeddings:
    """Return an item without the empty times that a still has if a video was encoded, or is stored, beside it."""
    if any(map(len, item.frame_indices)):
        return item
    return item._with(frame_indices=[], timestamps=[], second_per_grid_ts=item.second_per_grid_ts[:0])


def read_kept(folder: Folder, format: ShardFormat, part: Part) -> list[tuple[Record, Embeddings | None]]:
    """Return the records and items of a part. Raises InputError if the shard cannot be read."""
    items = format.read(folder.directory / part.shard) if part.shard else None
    numbered = zip(part.records, part.rows(), strict=True)
    found = [(record, None if row is None or items is None else items[row]) for record, row in numbered]
    if items is not None and sum(item is not None for _, item in found) != len(items):
        raise InputError(f"{part.shard} does not hold the items of its table")
    return found
