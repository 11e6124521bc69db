"""Files that name or hold many items: JSON lines, Parquet files, and tars as WebDataset writes them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from qwenvis.errors import InputError, PackageError, listed, quoted, shown
from qwenvis.io.files import open_regular, reason
from qwenvis.jobs.inputs.entries import Entry, wanted

FIELDS = ("image", "video")  # of a line of JSON, and the columns that are looked for


def jsonl(path: str, include: tuple[str, ...], column: str | None) -> Iterator[Entry]:
    """Yield the paths in the fields ``image`` and ``video`` of each line, relative to the directory of the file.

    A field may be a path or a list of paths; lines without either are left out. Raises InputError.
    """
    with _readable(path), open_regular(path) as lines:
        for number, line in enumerate(lines, 1):
            where = f"{shown(path)}, line {number}"
            for kind, name in _paths(line, where) if line.strip() else ():
                yield Entry(str(Path(path).parent / name), kind=kind)


def _paths(line: bytes, where: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the path of each item of a line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is {quoted(row)}; expected an object with a field image or video")
    for kind in FIELDS:
        given = row.get(kind)
        for name in given if isinstance(given, list) else [given] * (given is not None):
            if not isinstance(name, str) or not name:
                raise InputError(f"{where}: {kind} is {quoted(name)}; expected a path")
            yield kind, name


def tar(path: str, include: tuple[str, ...], column: str | None) -> Iterator[Entry]:
    """Yield the images and videos in an uncompressed tar: FILE#MEMBER. Only the headers are read. Raises InputError."""
    with _readable(path), open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            cast(Any, archive).members.clear()  # which would hold every header
            if member.isreg() and not member.issparse() and wanted(member.name, include):
                name = f"{path}#{member.name}"
                yield Entry(name, file=path, offset=member.offset_data, length=member.size)
        end = cast(Any, archive).offset
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):  # for tarfile, a damaged header is the end
            raise InputError(f"{shown(path)} is damaged or cut: at byte {end:,} there is no header")


def parquet(path: str, include: tuple[str, ...], column: str | None) -> Iterator[Entry]:
    """Yield the items of a column of paths, relative to the directory of the file, or of encoded bytes: FILE#ROW.

    The column is ``column``, else the one that is named image or video. The structs of Hugging Face datasets, with
    bytes or a path, are columns of bytes. Raises InputError, and PackageError without pyarrow.
    """
    arrow, read = pyarrow(path)
    with _readable(path), read.ParquetFile(path, pre_buffer=False) as file:
        name = _column(path, file.schema_arrow.names, column)
        kind = name if name in FIELDS else ""
        stored = file.schema_arrow.field(name).type
        if arrow.types.is_string(stored) or arrow.types.is_large_string(stored):
            for batch in file.iter_batches(columns=[name]):
                for text in batch.column(0).drop_null().to_pylist():
                    yield Entry(str(Path(path).parent / text), kind=kind)
        elif arrow.types.is_binary(stored) or arrow.types.is_large_binary(stored) or _is_picture(arrow, stored):
            for row in range(file.metadata.num_rows):
                yield Entry(f"{path}#{row}", file=path, column=name, row=row, kind=kind)
        else:
            raise InputError(f"{shown(path)}: the column {name!r} is {stored}; expected paths or encoded bytes")


def pyarrow(path: str) -> tuple[Any, Any]:
    """Return pyarrow and its reader of Parquet. Raises PackageError if it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        needs = "is read and written with pyarrow, which is not installed: pip install 'qwenvis[arrow]'"
        raise PackageError(f"{shown(path)} {needs} ({error})") from error
    return pyarrow, pyarrow.parquet


def _column(path: str, names: list[str], column: str | None) -> str:
    chosen = [name for name in (FIELDS if column is None else (column,)) if name in names]
    if not chosen:
        looked = " or ".join(map(repr, FIELDS if column is None else (column,)))
        raise InputError(f"{shown(path)} has no column {looked}; it has {listed(names)}: name one with column")
    return chosen[0]


def _is_picture(arrow: Any, stored: Any) -> bool:
    """Return whether a type is the struct in which datasets stores images: bytes, and perhaps a path."""
    return bool(arrow.types.is_struct(stored) and stored.get_field_index("bytes") >= 0)


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Raise InputError for what reading a file of any content may raise."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, tarfile.TarError) as error:  # pyarrow's errors are OSErrors and ValueErrors
        told = reason(error) if isinstance(error, OSError | ValueError) else str(error)
        raise InputError(f"{shown(path)} cannot be read: {shown(told)}") from error
