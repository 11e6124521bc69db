"""The list of a job's items, which is written when the job begins: each name once, in an order that never changes.

Blocks of neighbouring items are what the processes of a job share out, and what a run redoes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import InputError, checked_integer, counted, shown
from qwenvis.jobs.inputs.entries import KINDS, Entry

BLOCK = 256  # items: enough for a shard of small items, few enough to share 2,000 items among several machines

_DIGEST = 16  # bytes: two of a billion names have one digest with a probability of 1e-21


class Share(NamedTuple):
    """The blocks of one process: those with the numbers ``number``, ``number + of`` and so on."""

    number: int = 0
    of: int = 1

    @classmethod
    def checked(cls, index: object, count: object) -> Share:
        """Check the numbers of a share. Raises InputError."""
        number = checked_integer(count, "the number of shares", 1)
        return cls(checked_integer(index, "share", 0, number - 1), number)

    def owns(self, position: int) -> bool:
        """Return whether the item at a position is in one of the blocks."""
        return block_of(position) % self.of == self.number


def block_of(position: int) -> int:
    """Return the number of the block of an item."""
    return position // BLOCK


ALONE = Share()  # one process for all blocks


def write(entries: Iterable[Entry], path: Path) -> tuple[int, int]:
    """Write the entries, each source once; return the number of lines, and of those that were left out.

    Memory takes 33 bytes an entry, and three times as much while they are sorted. Raises InputError if two different
    items have one source, or if one item is listed as an image and as a video.
    """
    sources, places, kinds = bytearray(), bytearray(), bytearray()
    with path.open("w", encoding="ascii") as file:
        for entry in entries:
            file.write(entry.line())
            sources += _digest(entry.source)
            places += _digest(entry._replace(kind="").line())
            kinds.append(KINDS.index(entry.kind))
    found = _digests(sources)
    _, first = np.unique(found, return_index=True)
    if len(first) < len(found):
        group = np.unique(found, return_inverse=True)[1]
        different = _digests(places) != _digests(places)[first][group]
        image, video = (np.bincount(group, np.frombuffer(kinds, np.uint8) == kind) > 0 for kind in (1, 2))
        if len(clash := np.flatnonzero(different | (image & video)[group])):
            source = shown(Entry.parse(_line(path, int(clash[0]))).source)
            if different[clash[0]]:
                raise InputError(f"two different items have the name {source}; the names of a job are unique")
            raise InputError(f"{source} is listed as an image and as a video")
        _keep(path, np.sort(first))
    return len(first), len(found) - len(first)


def refuse_new(path: Path, listed: Path) -> None:
    """Raise InputError if a list has items that the list at ``path``, with which the job began, does not have.

    Items that are gone since then keep their place.
    """
    began, now = (_digests(b"".join(map(_digest, _lines(each)))) for each in (path, listed))
    if len(new := np.flatnonzero(~np.isin(now, began))):
        source = Entry.parse(_line(listed, int(new[0]))).source
        more = f", and {len(new) - 1:,} more" if len(new) > 1 else ""
        raise InputError(
            f"{shown(str(path.parent))} was begun with {counted(len(began), 'item')}; not among them, or moved within "
            f"a container since: {shown(source)}{more}: name another directory for other items"
        )


def blocks(path: Path, share: Share = ALONE) -> Iterator[tuple[int, list[str]]]:
    """Yield the blocks of a share: the position of the first item, and the lines of all."""
    with path.open(encoding="ascii") as file:
        position = 0
        while lines := list(islice(file, BLOCK)):
            if share.owns(position):
                yield position, lines
            position += len(lines)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="ascii") as file:
        yield from file


def _line(path: Path, number: int) -> str:
    return next(islice(_lines(path), number, None))


def _keep(path: Path, numbers: NDArray[np.int64]) -> None:
    """Rewrite a list with some of its lines, whose numbers rise."""
    shorter, coming = path.with_suffix(".unique"), iter(numbers.tolist())
    with shorter.open("w", encoding="ascii") as file:
        wanted = next(coming, None)
        for number, line in enumerate(_lines(path)):
            if number == wanted:
                file.write(line)
                wanted = next(coming, None)
    shorter.replace(path)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_DIGEST).digest()


def _digests(joined: bytes | bytearray) -> NDArray[np.bytes_]:
    return np.frombuffer(bytes(joined), f"S{_DIGEST}")  # NumPy ignores zeros at the end, which pad equal lengths
