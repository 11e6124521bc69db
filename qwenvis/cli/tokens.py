"""Tokens that a command names: a file of tokens, one of its items, or an item of a job."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qwenvis.errors import InputError, counted, shown

if TYPE_CHECKING:
    from qwenvis.embeddings import Embeddings

SUFFIX = ".safetensors"
MARK = "#"  # between a file or a job and its item


class Stored(NamedTuple):
    """The tokens of one item, and the file that they were computed from if its bytes are known to be the same."""

    item: Embeddings
    picture: str | None = None


def find(text: str) -> Stored | None:
    """Return the tokens that a word names, or None if it names no tokens: ``FILE``, ``FILE#ITEM``, ``JOB#ITEM``.

    Raises InputError for a file that cannot be read, and unless the word names one item, by its name or number.
    """
    from qwenvis.io.files import expanded

    place, item = _split(text)
    path = expanded(place)
    if not path.exists():
        raise InputError(f"there is no file or job {shown(text)}")
    if path.is_dir():
        return _of_job(path, item)
    if _is_tokens(path):
        return _of_file(path, item)
    if item:
        raise InputError(f"{shown(place)} holds no tokens, so it has no item {shown(item)}")
    return None


def _split(text: str) -> tuple[str, str]:
    """Split a word at the last mark that follows the name of something that exists."""
    from qwenvis.io.files import expanded

    marks = [] if expanded(text).exists() else [at for at, letter in enumerate(text) if letter == MARK]
    at = next((at for at in reversed(marks) if expanded(text[:at]).exists()), len(text))
    return text[:at], text[at + 1 :]


def _is_tokens(path: Path) -> bool:
    """Return whether a file is to be read as safetensors: by its suffix, or by its first bytes."""
    from qwenvis.io.files import open_regular

    if path.suffix.lower() == SUFFIX:
        return True
    try:
        with open_regular(path) as file:
            head = file.read(9)
    except (OSError, ValueError):
        return False
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _of_file(path: Path, item: str) -> Stored:
    from qwenvis.embeddings import Embeddings

    found = Embeddings.load(path)
    return Stored(found[_number(found.sources, item, path)])


def _number(sources: Sequence[str], item: str, path: Path) -> int:
    """Return the number of the item of a name, or of a number, or of the only one. Raises InputError."""
    count = len(sources)
    example = f"name one as {shown(str(path))}{MARK}NAME, or by its number from 0 to {count - 1}"
    if not item:
        if count != 1:
            raise InputError(f"{shown(str(path))} holds {counted(count, 'item')}; {example}")
        return 0
    named = [number for number, source in enumerate(sources) if source == item]
    if len(named) > 1:
        raise InputError(f"{len(named)} items of {shown(str(path))} are called {shown(item)}; {example}")
    if not named and item.isdecimal() and int(item) < count:
        return int(item)
    if not named:
        raise InputError(f"{shown(str(path))} holds no item {shown(item)}; {example}")
    return named[0]


def _of_job(path: Path, item: str) -> Stored:
    from qwenvis import jobs

    results = jobs.open(path)
    if not item:
        place, count = shown(str(path)), counted(len(results), "item")
        raise InputError(f"{place} is a job of {count}; name one as {place}{MARK}NAME")
    try:
        record = results.record(item)
        found = results[item]
    except KeyError:
        if not item.isdecimal() or int(item) >= len(results):
            raise InputError(f"{shown(str(path))} holds no item {shown(item)}") from None
        record, found = results.record(int(item)), results[int(item)]
    return Stored(found, _unchanged(record["source"], record["sha256"]))


def _unchanged(source: str, sha256: str) -> str | None:
    """Return the name of a file if it has still the bytes of the hash."""
    from qwenvis.io.files import expanded, open_regular

    try:
        with open_regular(expanded(source)) as file:
            return source if hashlib.file_digest(file, "sha256").hexdigest() == sha256 else None
    except OSError:
        return None
