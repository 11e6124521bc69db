"""Open anything that holds the bytes of a file: a path, bytes, or a file object.

Only regular files are opened by name: opening or reading a named pipe, a socket or a device may block for ever, or have
side effects.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from qwenvis.errors import InputError, quoted
from qwenvis.io import sharing

# Neither a pipe nor a file of /proc or /sys may block, and Windows must not translate line endings.
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

# pathlib.Path removes one slash of a URL.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:|(https?|file|s3|gs):/", re.IGNORECASE)


def is_file(source: Any) -> bool:
    """Return whether a value names a file (a path), holds one (bytes), or is a file object."""
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(source, "read")


@contextmanager
def opened(source: Any, where: str, error: type[InputError]) -> Iterator[BinaryIO]:
    """Open a source (`is_file`) as a binary file at its start, with a position of its own.

    ``where`` names the source in errors. Raises ``error`` for a source that cannot be opened.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        with _named(os.fsdecode(source), where, error) as file:
            yield file
    else:
        _check_object(source, where, error)
        with sharing.view(source) as file:
            yield file


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading in binary; symbolic links are followed.

    Raises OSError for any other kind of file, before opening it (IsADirectoryError for a directory), and ValueError for
    an impossible name. `reason` describes both.
    """
    return open(path, "rb", opener=_opened)


def expanded(text: str) -> Path:
    """Return ``text`` as a path; a leading ``~`` or ``~user`` is expanded if that home exists."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def given_path(path: str | os.PathLike[str], name: str) -> Path:
    """Return the path that a caller passes as the argument ``name``. Raises InputError for what cannot be a path."""
    try:
        text = os.fsdecode(path)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {quoted(path)}; expected a path") from error
    if not text or "\0" in text:  # empty text would be the current directory
        raise InputError(f"{name} is {quoted(path)}, which cannot be a path")
    return Path(text)


def reason(error: OSError | ValueError) -> str:
    """Describe why a file could not be opened, without repeating its name."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return getattr(error, "strerror", None) or str(error)


def _named(path: str, where: str, error: type[InputError]) -> BinaryIO:
    if _URL.match(path):
        raise error(f"{where} is a URL, and nothing is downloaded: pass a path, or the bytes")
    try:
        return open_regular(expanded(path))
    except IsADirectoryError:
        raise error(f"{where} is a directory; pass the files in it") from None
    except FileNotFoundError as cause:
        raise error(f"{where}: {reason(cause)}") from None
    except (OSError, ValueError) as cause:
        raise error(f"{where} cannot be read: {reason(cause)}") from cause


def _check_object(source: Any, where: str, error: type[InputError]) -> None:
    if getattr(source, "closed", False) is True:
        raise error(f"{where} is closed")
    if not (hasattr(source, "seekable") and source.seekable()):
        raise error(f"{where} cannot be rewound; pass its bytes: file.read()")
    if hasattr(source, "readable") and not source.readable():
        raise error(f"{where} is not open for reading; open it with mode 'rb'")
    if isinstance(source.read(0), str):
        raise error(f"{where} is open as text; open it with mode 'rb'")


def _opened(path: str, flags: int) -> int:
    """Open a regular file; check its kind before, and again by the descriptor, in case the name was replaced."""
    _check(Path(path).stat(), path)
    descriptor = os.open(path, flags | _FLAGS)
    try:
        _check(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(status: os.stat_result, path: str) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"not a regular file but {_KINDS.get(kind, 'something else')}", path)
