"""Files that are opened by name: regular files, opened at once.

A named pipe, a socket or a device may wait for ever, or do something, when it is opened or read. None of them is.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

# Nothing waits: neither for the other end of a pipe, nor for what a file of /proc or /sys has yet to tell. As text is
# translated on Windows, so would bytes be.
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes; links are followed.

    Raises OSError, before it is opened, for what is no regular file: IsADirectoryError for a directory. ValueError
    for a name that no file can have. `reason` has the words for both.
    """
    return open(path, "rb", opener=_opened)


def reason(error: OSError | ValueError) -> str:
    """Why a file could not be opened, in words that do not repeat its name."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return getattr(error, "strerror", None) or str(error)


def _opened(path: str, flags: int) -> int:
    """A descriptor of a regular file: checked before it is opened, and again after, when its name cannot matter."""
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
