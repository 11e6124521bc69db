"""New files and directories that appear whole or not at all: drafts beside their place, renamed once they are done."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qwenvis.errors import InputError, QwenvisError, quoted, shown
from qwenvis.io.files import expanded

_DRAFT = re.compile(r"\.[0-9a-f]{16}")


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """Yield an unused path beside ``target``; what is still there after the block, a file or a directory, is removed.

    Its name is short, however long the name of the target is.
    """
    draft = target.parent / f".{secrets.token_hex(8)}"
    try:
        yield draft
    finally:
        with suppress(OSError, ValueError):  # ValueError: a path with a NUL
            shutil.rmtree(draft, ignore_errors=True)  # which leaves a file alone
            draft.unlink(missing_ok=True)


def flush(file: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with file.open("rb+") as written:
        os.fsync(written.fileno())


def flush_names(directory: Path) -> None:
    """Wait until the names in a directory are on the disk. Windows cannot open a directory, and does nothing here."""
    if os.name != "nt":
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_abandoned(directory: Path, seconds: float) -> None:
    """Remove the draft directories in a directory that have not changed for some time: of processes that were killed.

    Raises OSError if the directory cannot be read.
    """
    for path in directory.iterdir():
        with suppress(OSError):  # its writer may finish just now
            if _DRAFT.fullmatch(path.name) and time.time() - path.lstat().st_mtime > seconds:
                shutil.rmtree(path)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield a draft, an empty file, that takes the place of ``target`` after the block, unless the block fails.

    Raises InputError if the target cannot be written.
    """
    try:
        if target.exists() and not target.is_file():
            raise InputError(f"{target} cannot be written: it is not a regular file")
        with draft_of(target) as draft:
            draft.touch()
            mode = draft.stat().st_mode  # follows the umask; safetensors creates private files
            yield draft
            draft.chmod(mode)
            draft.replace(target)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(str(target))} cannot be written: {shown(str(error))}") from error


@contextmanager
def whole_directory(place: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a draft, an empty directory, that gets the name ``place`` after the block, unless the block fails.

    Its files are on the disk before it has that name. Raises InputError where something has the name already, or where
    the directory cannot be written.
    """
    try:
        target = expanded(os.fsdecode(place)).resolve()
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a loop of links, before 3.13
        raise InputError(f"directory is {quoted(place)}, which is not a valid path: {error}") from error
    if os.path.lexists(target):
        raise InputError(f"{target} already exists; name a new directory")
    try:
        with draft_of(target) as draft:
            draft.mkdir()
            yield draft
            for file in draft.iterdir():
                flush(file)
            draft.rename(target)
    except QwenvisError:  # some are OSErrors
        raise
    except OSError as error:
        raise InputError(f"{shown(str(target))} cannot be written: {error.strerror}") from error
