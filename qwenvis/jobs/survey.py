"""What is left of a job to do: the parts that exist are verified, and the gaps between them are listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from qwenvis.concurrency import tasks
from qwenvis.jobs import roster
from qwenvis.jobs.folder import Folder
from qwenvis.jobs.inputs.entries import Entry
from qwenvis.jobs.inputs.payloads import Reader
from qwenvis.jobs.parts import Record, intact
from qwenvis.jobs.roster import Share

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Gap:
    """The rest of a block, from the first part that is missing, damaged, or has an item to be tried again.

    - ``start``, ``stop``: the positions of its items.
    - ``others``: where the parts begin whose files are of no use once the gap is filled, or are replaced.
    - ``parts``: which of them are intact: their items are not encoded again.
    - ``todo``: the positions of the items to encode.
    """

    start: int
    stop: int
    others: Sequence[int]
    parts: Sequence[int]
    todo: Sequence[int]


class Survey:
    """Looks at every block of a share.

    - ``failures``: the number of failed items that are not tried again, once `gaps` has returned.
    """

    def __init__(self, folder: Folder, share: Share, threads: int, retry: bool) -> None:
        """Verify with ``threads`` threads. With ``retry``, all failed items are to be tried again."""
        self._folder, self._share, self._threads, self._retry = folder, share, threads, retry
        self._reader = Reader()
        self.failures = 0

    def gaps(self, items: int, progress: Progress) -> list[Gap]:
        """List the gaps of a job of so many items, in order."""
        present = {block: list(firsts) for block, firsts in groupby(self._folder.positions(), roster.block_of)}
        found = []
        for position, lines in roster.blocks(self._folder.items, self._share):
            firsts = present.get(roster.block_of(position), [])
            gap = self._gap(position, lines, firsts)
            if gap is not None:
                found.append(gap)
            progress(position + len(lines), items)
        return found

    def _gap(self, position: int, lines: list[str], firsts: list[int]) -> Gap | None:
        """Return the gap of a block, or None; files that belong to no part of a complete block are removed."""
        stop = position + len(lines)
        calls = [partial(intact, self._folder, first) for first in firsts]
        parts = [part for part in tasks.run_parallel(calls, self._threads) if part is not None]
        numbered = ((at, record) for part in parts for at, record in enumerate(part.records, part.first))
        failed = {at: record for at, record in numbered if record["error"]}
        again = {at for at, record in failed.items() if self._is_new(record, lines[at - position])}
        self.failures += len(failed) - len(again)
        start, chain = position, []
        for part in parts:
            if part.first == start and not again.intersection(range(part.first, part.stop)):
                chain.append(start)
                start = part.stop
        others = [first for first in firsts if first not in chain]
        if start == stop:
            self._folder.remove(others)
            return None
        kept = [part for part in parts if part.stop > start]
        settled = {at for part in kept for at in range(part.first, part.stop)} - again
        todo = [at for at in range(start, stop) if at not in settled] if settled else range(start, stop)
        return Gap(start, stop, others, [part.first for part in kept], todo)

    def _is_new(self, record: Record, line: str) -> bool:
        """Return whether the bytes of a failed item have changed since it failed."""
        return self._retry or self._reader.read(Entry.parse(line)).sha256 != record["sha256"]
