"""Checkpoints of the Hub that are not here: their headers are read by byte ranges, their files downloaded when needed.

The configs and the index come into the Hugging Face cache first. The tower follows once its tensors are wanted: as the
shards that hold it, in the same cache, or as byte ranges, in an extract in the cache of qwenvis.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

from huggingface_hub import is_offline_mode
from huggingface_hub.utils import WeakFileLock

from qwenvis import models
from qwenvis.checkpoints.checkpoint import Checkpoint, Progress
from qwenvis.checkpoints.configs import CONFIG, FILES, PROCESSOR, read_configs
from qwenvis.checkpoints.extract import extract
from qwenvis.checkpoints.files import MAX_JSON_BYTES, Files, regular_file
from qwenvis.checkpoints.shards import INDEX, MAX_INDEX_BYTES, SINGLE
from qwenvis.checkpoints.stored import StoredTensor
from qwenvis.concurrency.tasks import run_parallel
from qwenvis.errors import CheckpointError, InputError, SourceError
from qwenvis.io.files import open_regular
from qwenvis.sources.download import Client
from qwenvis.sources.hub import HubName, exists, is_commit
from qwenvis.sources.ranges import HEAD, RangeReader, RemoteFile, TransferError, pieces_of
from qwenvis.weights import Request

SIDE_BY_SIDE = 4  # small files


class RemoteFiles:
    """The files of a snapshot that holds some of them: the others are found on the Hub, and read by byte ranges."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._found: dict[Path, RemoteFile | None] = {}

    def find(self, snapshot: Path, name: str) -> Path | None:
        """Find a file here or on the Hub; None where it is on neither. Raises SourceError."""
        path = snapshot / name
        if path not in self._found:
            if regular_file(snapshot, name) is not None:
                return path
            try:
                self._found[path] = RemoteFile(f"{name} of {self.client.name.repo}", partial(self.client.located, name))
            except SourceError:
                raise
            except FileNotFoundError:
                self._found[path] = None
        return None if self._found[path] is None else path

    def open(self, path: Path, tensors: Sequence[StoredTensor] = ()) -> BufferedReader:
        """Open a file that was found, to read a header, or ``tensors`` of it, in order."""
        remote = self._found.get(path)
        if remote is None or exists(path):
            return open_regular(path)
        return BufferedReader(RangeReader(remote, pieces_of(tensors)), HEAD)

    def nbytes(self, paths: Sequence[Path]) -> int:
        """Bytes of the files that are not here."""
        return sum(remote.size for path in paths if (remote := self._found.get(path)) and not exists(path))


@dataclass(frozen=True, kw_only=True)
class Remote(Checkpoint):
    """A checkpoint of the Hub whose tower is downloaded when the first tensor is read."""

    hub: RemoteFiles
    open_at: Callable[[Path], Checkpoint]
    requests: Sequence[Request] = ()

    def holding(self, requests: Sequence[Request]) -> Self:
        """Return the checkpoint for a tower that makes these requests, which are checked before a download."""
        return replace(self, requests=tuple(requests))

    @property
    def pending(self) -> str:
        """The files to download; empty once the tower is here."""
        if self._place() is not None:
            return ""
        count, nbytes = len(self.files), self.hub.nbytes(self.files)
        whole = f"{count} file{'s' * (count > 1)} of {nbytes / 1e9:.2f} GB"
        return f"downloads {f'its bytes of {whole}' if self._by_ranges else whole}"

    def prepare(self, progress: Progress | None = None) -> None:
        """Download the tower, unless it is here: its shards, or with ``tower_only`` an extract.

        ``progress(bytes_done, bytes_total)`` follows the bytes. Raises CheckpointError where the tensors are not those
        of the tower, and SourceError where the download fails.
        """
        if self._place() is not None:
            return
        requests = self.requests or [Request(name, shape, lambda array: None) for name, shape in self.shapes.items()]
        self._compare(requests)
        with _written(self._name):
            if self._by_ranges:
                self._extract(requests, progress)
            else:
                self._download(progress)

    def load(self, requests: Sequence[Request], progress: Progress | None = None) -> None:
        """Download the tower, then answer every request, as `Checkpoint.load`; ``progress`` follows both in turn."""
        self._compare(requests)
        self.prepare(progress)
        place = self._place()
        if place is None:
            raise SourceError(f"{self._name.source} was removed from the cache while it was in use")
        self.open_at(place).load(requests, progress)

    def streamed(self) -> Checkpoint:
        """Return the checkpoint whose tensors are fetched as they are read, ahead and side by side."""
        stored = [part.stored for tensor in self.tensors.values() for part in tensor.parts]

        def opened(path: Path) -> BufferedReader:
            return self.hub.open(path, [each for each in stored if each.file.path == path])

        return _Streamed(**{**_fields(self), "open_file": opened})

    @property
    def _name(self) -> HubName:
        return self.hub.client.name

    @property
    def _by_ranges(self) -> bool:
        """Whether the tower alone is downloaded; an mmproj file is a tower already."""
        return self._name.options.tower_only and not self._name.file

    def _place(self) -> Path | None:
        """Find the tower here: a snapshot, its file, or an extract."""
        if all(map(exists, self.files)):
            return self.path
        extracted = self._name.extracted(self.hub.client.revision)
        return extracted if not self._name.file and extracted.is_dir() else None

    def _extract(self, requests: Sequence[Request], progress: Progress | None) -> None:
        """Fetch the tower's byte ranges into the cache of qwenvis; one process at a time, for each repo."""
        place = self._name.extracted(self.hub.client.revision)
        place.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(place.parent / ".lock"):
            if place.is_dir():
                return
            for draft in place.parent.glob(".*/"):  # of processes that were killed
                shutil.rmtree(draft, ignore_errors=True)
            _refuse_a_full_disk(self._name, place.parent, self.nbytes)
            extract(place, self, requests, progress)

    def _download(self, progress: Progress | None) -> None:
        """Download the files that hold the tower into the Hugging Face cache."""
        client, done = self.hub.client, 0
        total = self.hub.nbytes(self.files)
        _refuse_a_full_disk(self._name, self._name.options.cache, total)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(min(done, total), total)

        for path in self.files:
            if not exists(path):
                client.download(path.name if not self._name.file else self._name.file, advance)
        client.note()


class _Streamed(Checkpoint):
    """A checkpoint whose tensors come by byte ranges as they are read."""

    def load(self, requests: Sequence[Request], progress: Progress | None = None) -> None:
        """Answer every request, as `Checkpoint.load`; raises SourceError for a transfer that fails."""
        with _reached():
            super().load(requests, progress)


def _fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """List what all checkpoints have."""
    return {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}


def open_remote(name: HubName, commit: str, open_at: Callable[..., Checkpoint]) -> Remote:
    """Open a checkpoint of the Hub, at a commit if that is known: read its configs, index and headers.

    ``open_at(path, files)`` opens a checkpoint by its layout.

    Raises SourceError where the Hub has or shows no such checkpoint, or cannot be reached; ConfigError and
    CheckpointError as `open_at`.
    """
    client = Client(name, commit or name.revision)
    if is_offline_mode():
        raise SourceError(f"{name.source} is not in the cache, and huggingface_hub is in its offline mode")
    with _reached():
        if name.file:
            commit = _commit_of(client)
            snapshot = name.folder / "snapshots" / commit
            path, files = snapshot / name.file, RemoteFiles(Client(name, commit))
            files.find(snapshot, name.file)
        else:
            path = _configured(client)
            commit = path.name
            files = RemoteFiles(Client(name, commit))
            if files.find(path, SINGLE) is None and _small(files.client, INDEX, MAX_INDEX_BYTES) is None:
                raise CheckpointError(f"{name.repo} holds neither {SINGLE} nor {INDEX}; {_NAME_GGUF.format(name.repo)}")
        found = open_at(path, Files(files.find, files.open))
    return Remote(**{**_fields(found), "source": name.pinned(commit)}, hub=files, open_at=open_at)


_NAME_GGUF = "to read a GGUF file of it, name the file: {}/FILE.gguf"


def _configured(client: Client) -> Path:
    """Download the configs; return the snapshot that holds them. A config without a tower is refused at once."""
    config = _small(client, CONFIG, MAX_JSON_BYTES)
    if config is None:
        raise SourceError(f"{client.name.repo} has no {CONFIG} on {client.host}; {_NAME_GGUF.format(client.name.repo)}")
    snapshot = config.parent
    _checked(client, snapshot.name)
    configs = read_configs(snapshot)
    models.named(configs["model_type"], configs["vision_config"])
    pinned = Client(client.name, snapshot.name)
    for _ in run_parallel(
        [partial(_small, pinned, file, MAX_JSON_BYTES) for file in (*FILES, PROCESSOR)], SIDE_BY_SIDE
    ):
        pass
    return snapshot


def _small(client: Client, file: str, most: int) -> Path | None:
    """Download a file of at most ``most`` bytes; None where the repo has none. Raises SourceError, CheckpointError."""
    cached = client.name.folder / "snapshots" / client.revision / file
    if is_commit(client.revision) and exists(cached):
        return cached
    try:
        size = client.located(file).size
        if size > most:
            raise CheckpointError(f"{file} of {client.name.repo} has {size:,} bytes; at most {most:,} are read")
        return client.download(file)
    except SourceError:
        raise
    except FileNotFoundError:
        return None


def _commit_of(client: Client) -> str:
    """Return the commit at which the Hub has the file of a GGUF id. Raises SourceError where it has none."""
    name = client.name
    try:
        return _checked(client, client.located(name.file).commit)
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{name.repo} has no {name.file} at its revision {client.revision}") from None


def _checked(client: Client, commit: str) -> str:
    if not is_commit(commit):
        raise SourceError(f"{client.host} names no commit of {client.name.repo}: it does not answer as a Hub does")
    return commit


def _refuse_a_full_disk(name: HubName, place: Path, nbytes: int) -> None:
    place = next(path for path in (place, *place.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(place).free) < nbytes:
        raise SourceError(f"{name.source} takes {nbytes / 1e9:.2f} GB and {place} has {free / 1e9:.2f} GB free")


@contextmanager
def _reached() -> Iterator[None]:
    """Raise SourceError for a CheckpointError about a file that could not be transferred."""
    try:
        yield
    except CheckpointError as error:
        if isinstance(error.__cause__, TransferError):
            raise SourceError(str(error.__cause__)) from None
        raise


@contextmanager
def _written(name: HubName) -> Iterator[None]:
    """Raise SourceError where a cache cannot be written."""
    try:
        yield
    except SourceError:
        raise
    except (InputError, OSError) as error:
        raise SourceError(f"{name.source} cannot be downloaded: {error}") from error
