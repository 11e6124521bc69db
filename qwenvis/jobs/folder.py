"""The files of a job's directory, each of which appears whole; drafts lie in a hidden directory of one process."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qwenvis.errors import InputError, QwenvisError, listed, shown
from qwenvis.io.drafts import flush, flush_names
from qwenvis.io.files import reason
from qwenvis.jobs.formats import FORMATS
from qwenvis.jobs.roster import ALONE, Share

SUFFIXES = tuple(f".{name}" for name in FORMATS)

_DRAFTS = re.compile(r"\.drafts-\d+-of-\d+")


class Folder:
    """A directory with job.json, items.jsonl, manifest.jsonl, index.safetensors, ``shards/`` and ``tables/``.

    - ``drafts``: where the process of one share writes its files before they get their places.
    """

    def __init__(self, directory: Path, share: Share = ALONE) -> None:
        self.directory = directory
        self.shards, self.tables = directory / "shards", directory / "tables"
        self.drafts = directory / f".drafts-{share.number}-of-{share.of}"
        self.job, self.items = directory / "job.json", directory / "items.jsonl"
        self.manifest, self.index = directory / "manifest.jsonl", directory / "index.safetensors"

    def table(self, first: int) -> Path:
        """Return the path of the table of the part that begins at a position."""
        return self.tables / f"{first:09d}.jsonl"

    def shard(self, first: int, suffix: str) -> Path:
        """Return the path of the shard of the part that begins at a position."""
        return self.shards / f"{first:09d}{suffix}"

    def parts(self) -> list[int]:
        """Return the positions at which the parts with a table begin, in order."""
        return sorted(_positions(self.tables))

    def positions(self) -> list[int]:
        """Return the positions in the names of tables and shards, in order."""
        return sorted({*_positions(self.tables), *_positions(self.shards)})

    def remove(self, firsts: Iterable[int]) -> None:
        """Remove the tables and shards of parts that begin at these positions."""
        for first in firsts:
            self.table(first).unlink(missing_ok=True)
            self.remove_shard(first)

    def remove_shard(self, first: int) -> None:
        """Remove the shard that begins at a position, if there is one."""
        for suffix in SUFFIXES:
            self.shard(first, suffix).unlink(missing_ok=True)

    def place(self, draft: Path, target: Path) -> None:
        """Give a draft its place, once its content is on the disk. Raises OSError."""
        flush(draft)
        draft.replace(target)
        flush_names(target.parent)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Create the directories, and keep other processes of the same share out.

        Raises InputError if another process works here, or if the directory
        cannot be used.
        """
        self.refuse_other_files()
        with self.writing():
            self.shards.mkdir(parents=True, exist_ok=True)
            self.tables.mkdir(exist_ok=True)
            self.drafts.mkdir(exist_ok=True)
        with _locked(self.drafts) as free:
            if not free:
                raise InputError(f"another process is at work in {shown(str(self.directory))}, on the same share")
            try:
                yield
            finally:
                shutil.rmtree(self.drafts, ignore_errors=True)
                self._remove_if_not_begun()

    def _remove_if_not_begun(self) -> None:
        """Remove the directories of a job without items."""
        if not self.job.is_file():
            for empty in (self.shards, self.tables, self.directory):
                with suppress(OSError):
                    empty.rmdir()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise InputError for an OSError of a file of the job."""
        try:
            yield
        except QwenvisError:
            raise
        except OSError as error:
            place = shown(str(error.filename or self.directory))
            raise InputError(f"{place} cannot be written: {reason(error)}; the job can be continued") from error

    def refuse_other_files(self) -> None:
        """Raise InputError if the directory cannot be one, or holds files, but no job."""
        self._refuse_closed()
        ours = {self.items.name, self.shards.name, self.tables.name}
        names = [path.name for path in self.directory.iterdir()] if self.directory.is_dir() else []
        others = sorted(name for name in names if name not in ours and not _DRAFTS.fullmatch(name))
        if others and self.job.name not in others:
            raise InputError(f"{shown(str(self.directory))} holds {listed(others)}, and no job: name a new directory")

    def _refuse_closed(self) -> None:
        """Raise InputError if the directory cannot be created or written."""
        try:
            present = next(path for path in (self.directory, *self.directory.absolute().parents) if path.exists())
        except OSError as error:
            raise InputError(f"{shown(str(self.directory))} cannot be a directory: {reason(error)}") from error
        if not present.is_dir():
            raise InputError(f"{shown(str(present))} is not a directory; name another one for the job")
        if not os.access(present, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(f"{shown(str(present))} cannot be written by this user; name another directory")

    def remove_abandoned(self) -> None:
        """Remove the drafts of killed processes with other shares."""
        for path in self.directory.iterdir():
            if _DRAFTS.fullmatch(path.name) and path != self.drafts:
                with suppress(OSError), _locked(path) as free:
                    if free:
                        shutil.rmtree(path)


def _positions(directory: Path) -> Iterator[int]:
    paths = directory.iterdir() if directory.is_dir() else ()
    return (int(path.stem) for path in paths if path.stem.isdecimal())


def sha256(path: Path) -> str:
    """Return the hash of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Lock a directory; yield whether no other process has locked it. The system unlocks it when a process ends.

    Windows does not lock directories, and always yields True.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
