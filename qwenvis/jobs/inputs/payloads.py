"""The bytes of an item, read ahead of the encoder, and their hash."""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from qwenvis.errors import ImageError, QwenvisError, shown
from qwenvis.images import decode
from qwenvis.io.files import opened, reason
from qwenvis.jobs.inputs.containers import pyarrow
from qwenvis.jobs.inputs.entries import Entry
from qwenvis.jobs.inputs.section import Section
from qwenvis.videos.decode import is_video

HELD = 1 << 24  # bytes: larger images, and videos, are read again by the decoder, not held in memory
CHUNK = 1 << 20


@dataclass(frozen=True)
class Payload:
    """What was read of an item.

    - ``position``: its number in the list of the job.
    - ``content``: its bytes, or the file that the decoder reads; None if it cannot be read.
    - ``sha256``: the hash of its bytes in hexadecimal; None if they cannot be read.
    - ``kind``: "image" or "video".
    - ``error``: why it cannot be read, or None.
    """

    entry: Entry
    position: int
    content: bytes | str | Section | None = None
    sha256: str | None = None
    kind: str = "image"
    error: QwenvisError | None = None

    def reason(self, error: QwenvisError) -> str:
        """Return the message of an error about the item, with its source in place of the name that a decoder uses."""
        label, text = decode.label(self.content, self.position), str(error)
        for where in (label, label.replace("image", "video", 1)):
            text = self.entry.source + text.removeprefix(where) if text.startswith(where) else text
        return text


class Reader:
    """Reads items, from several threads; of a Parquet file, one row group at a time is in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._column: tuple[str, str] | None = None
        self._parquet: Any = None
        self._rows: tuple[range, Any] = range(0), None

    def read(self, entry: Entry, position: int = 0) -> Payload:
        """Read an item; an error is part of the result."""
        try:
            if entry.column:
                return _held(entry, position, self._cell(entry))
            with _member(entry) if entry.file else opened(entry.source, entry.source, ImageError) as file:
                return _file(entry, position, file)
        except QwenvisError as error:
            return Payload(entry, position, error=error)
        except (OSError, ValueError) as error:  # pyarrow's errors are both
            return Payload(entry, position, error=ImageError(f"{entry.source} cannot be read: {reason(error)}"))

    def _cell(self, entry: Entry) -> bytes:
        """Return the bytes in a row of a Parquet column."""
        with self._lock:
            if self._column != (entry.file, entry.column):
                self._parquet = pyarrow(entry.file)[1].ParquetFile(Path(entry.file), pre_buffer=False)
                self._column, self._rows = (entry.file, entry.column), (range(0), None)
            if entry.row not in self._rows[0]:
                self._rows = self._row_group(entry)
            rows, cells = self._rows
            cell = cells[entry.row - rows.start].as_py()
        content = cell.get("bytes") or _named(entry, cell.get("path")) if isinstance(cell, dict) else cell
        if not content or not isinstance(content, bytes):
            raise ImageError(f"{entry.source} holds no bytes")
        return content

    def _row_group(self, entry: Entry) -> tuple[range, Any]:
        """Return the rows of the row group that holds an item, and their column."""
        if entry.column not in self._parquet.schema_arrow.names:
            raise ImageError(f"{entry.source}: the file has no column {entry.column!r} now")
        stop = 0
        for group in range(self._parquet.num_row_groups):
            first, stop = stop, stop + self._parquet.metadata.row_group(group).num_rows
            if entry.row < stop:
                return range(first, stop), self._parquet.read_row_group(group, columns=[entry.column]).column(0)
        raise ImageError(f"{entry.source}: the file has {stop:,} rows now")


def _named(entry: Entry, path: object) -> bytes | None:
    """Return the bytes of the file that a struct of datasets names in place of bytes. Raises ImageError."""
    if not isinstance(path, str) or not path:
        return None
    with opened(Path(entry.file).parent / path, f"{entry.source} ({shown(path)})", ImageError) as file:
        return file.read()


def _file(entry: Entry, position: int, file: BinaryIO) -> Payload:
    """Read a small image whole, and of a video or a large file only the hash."""
    kind = _kind(entry, file)
    file.seek(0)
    content = file.read(HELD) if kind == "image" else b""
    hashed = hashlib.sha256(content)
    more = file.read(CHUNK)
    held = kind == "image" and not more
    while more:
        hashed.update(more)
        more = file.read(CHUNK)
    return Payload(entry, position, content if held else _again(entry), hashed.hexdigest(), kind)


def _again(entry: Entry) -> str | Section:
    """Return what the decoder reads again."""
    return _section(entry) if entry.file else entry.source


def _section(entry: Entry) -> Section:
    return Section(entry.file, entry.offset, entry.length, entry.source)


def _member(entry: Entry) -> BinaryIO:
    """Open a member of a tar. Raises ImageError if the tar is shorter by now."""
    size = Path(entry.file).stat().st_size
    if size < entry.offset + entry.length:
        raise ImageError(
            f"{entry.source} ends at byte {entry.offset + entry.length:,}, the tar at byte {size:,}: it was cut"
        )
    return cast(BinaryIO, io.BufferedReader(_section(entry)))


def _held(entry: Entry, position: int, content: bytes) -> Payload:
    return Payload(entry, position, content, hashlib.sha256(content).hexdigest(), _kind(entry, content))


def _kind(entry: Entry, source: BinaryIO | bytes) -> str:
    """Return what an item is: by its input, else by its bytes and its name."""
    return entry.kind or ("video" if is_video(source, entry.source) else "image")
