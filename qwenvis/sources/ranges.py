"""Read files of the Hub by byte ranges over HTTP.

A broken transfer resumes at the byte that it has reached. If the ETag or the length of a file changes between two
requests, the bytes may come from two versions of the file, which is an error.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import pairwise
from typing import Any

import httpx2
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from qwenvis.checkpoints.stored import StoredTensor
from qwenvis.concurrency.tasks import run_ahead

HEAD = 1 << 17  # bytes of the first request; the header of a shard with 700 tensors has about 80 kB
PIECE = 8 << 20  # bytes of a request for tensors: a progress bar moves about once a second at 10 MB/s
AHEAD = 4  # requests in parallel, whose pieces are held in memory: one connection is often slower than the line
# Ranges with a gap of at most GAP bytes are merged: a second request costs one or two round trips, about 100 ms, in
# which a line of 20 Mbit/s transfers as much. All gaps together are at most 1/64 of the requested bytes.
GAP = 1 << 18
GAPS = 64
TIMEOUT = 20  # seconds without a byte, after which a connection counts as broken
RETRIES = 5  # failures in a row, without `MOVED` bytes in between
MOVED = 1 << 16
PAUSE = 0.5  # seconds before the first retry; doubled for each further one
LONGEST = 120  # the longest Retry-After that is obeyed, in seconds

_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_EXPIRED = {401, 403, 404, 410}  # what the host of a signed URL may answer once its signature is too old
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


class TransferError(OSError):
    """A file of the Hub could not be read; the text has neither a token nor a signed URL."""


class _Retry(Exception):
    """A temporary failure, and the seconds to wait that the server has stated, if any."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


@dataclass(frozen=True)
class Location:
    """The URL of a file, which may expire, the headers to send, and the file's size, ETag and commit on the Hub."""

    url: str
    size: int
    etag: str
    headers: Mapping[str, str] = field(repr=False)  # with a token, if the URL is the Hub's own
    commit: str


class RemoteFile:
    """A file of the Hub. ``locate()`` finds its URL, again when it has expired. Threads may share the file."""

    def __init__(self, name: str, locate: Callable[[], Location]) -> None:
        self.name, self._locate = name, locate
        self._location, self._relocating = locate(), threading.Lock()
        self._served: dict[str, str] = {}  # the first ETag of each host
        self.head = b""  # the first bytes of the file, as far as they have been read

    @property
    def commit(self) -> str:
        """The commit that the Hub has named."""
        return self._location.commit

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._location.size

    def fetch(self, start: int, stop: int, wait: Callable[[float], object] = time.sleep) -> bytes:
        """Return the bytes from ``start`` to ``stop``. Raises TransferError where that fails for good."""
        data, failures, relocated = bytearray(), 0, False
        while len(data) < stop - start:
            before, location = len(data), self._location
            try:
                self._receive(location, start, stop, data)
            except PermissionError as error:
                if relocated:
                    raise TransferError(f"{self.name}: {error}") from None
                self._relocate(location)
                relocated = True
            except _Retry as failure:
                failures = 1 if len(data) - before >= MOVED else failures + 1
                if failures > RETRIES:
                    raise TransferError(f"{self.name}: {failure}, {failures} times in a row") from None
                wait(PAUSE * 2 ** (failures - 1) if failure.after is None else failure.after)
        return bytes(data)

    def _relocate(self, old: Location) -> None:
        """Find the file again, whose URL has expired; another thread may have found it already."""
        with self._relocating:
            if self._location is not old:
                return
            try:
                found = self._locate()
            except OSError as error:
                raise TransferError(f"{self.name}: {error}") from None
            if (found.etag, found.size) != (old.etag, old.size):
                raise self._changed()
            self._location = found

    def _receive(self, location: Location, start: int, stop: int, data: bytearray) -> None:
        """Append what one request brings of the bytes from ``start`` to ``stop``; ``data`` has the first of them."""
        begin, host = start + len(data), self._host(location)
        headers = {**location.headers, "Range": f"bytes={begin}-{stop - 1}", "Accept-Encoding": "identity"}
        if (etag := self._served.get(host, "")).startswith('"'):  # a weak one never matches
            headers["If-Match"] = etag
        try:
            with get_session().stream("GET", location.url, headers=headers, timeout=TIMEOUT) as response:
                self._check(response, begin, stop)
                if self._served.setdefault(host, response.headers.get("ETag", "")) != response.headers.get("ETag", ""):
                    raise self._changed()
                for chunk in response.iter_raw():
                    data += chunk[: stop - start - len(data)]
                    if len(data) == stop - start:
                        return  # the rest, of a server that sends whole files, is not read
        except (httpx2.TransportError, RuntimeError) as error:  # RuntimeError: another thread closed the session
            raise _Retry(f"the transfer from {host} broke off ({type(error).__name__})") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
            raise TransferError(f"{self.name}: {host} cannot be read from ({type(error).__name__})") from None
        raise _Retry(f"the answer of {host} ended early")

    def _host(self, location: Location) -> str:
        """Return the host of a URL, which a server has sent."""
        try:
            return httpx2.URL(location.url).host
        except httpx2.InvalidURL:
            raise TransferError(f"{self.name}: the Hub redirects to an invalid URL") from None

    def _check(self, response: httpx2.Response, begin: int, stop: int) -> None:
        """Raise unless a response brings bytes from ``begin`` on, and none behind ``stop`` where it is a range."""
        status, host = response.status_code, response.url.host
        if status in _RETRIED:
            raise _Retry(f"{host} answers {status}", self._told(response))
        if status in (412, 416):
            raise self._changed()
        if status in _EXPIRED:
            raise PermissionError(f"{host} answers {status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TransferError(f"{self.name}: {host} sends compressed bytes, expected the bytes of the file")
        if status == 200:
            if begin:
                raise TransferError(f"{self.name}: {host} sends no byte ranges, only whole files")
            if int(response.headers.get("Content-Length", self.size)) != self.size:
                raise self._changed()
            return
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "")) if status == 206 else None
        if match is None:
            raise TransferError(f"{self.name}: {host} answers {status}, expected a range of bytes")
        first, last, size = map(int, match.groups())
        if size != self.size:
            raise self._changed()
        if first != begin or not begin <= last < stop:
            raise TransferError(f"{self.name}: {host} sends bytes {first} to {last}, expected {begin} to {stop - 1}")

    def _told(self, response: httpx2.Response) -> float | None:
        """Seconds that a server tells to wait, in its Retry-After; None where it does not tell."""
        text = response.headers.get("Retry-After", "")
        try:
            seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
        if seconds > LONGEST:
            raise TransferError(
                f"{self.name}: {response.url.host} answers {response.status_code}, and to try again "
                f"in {seconds:.0f} seconds"
            )
        return max(0.0, seconds)

    def _changed(self) -> TransferError:
        return TransferError(f"{self.name} changed on the server between two requests; try again")


class RangeReader(io.RawIOBase):
    """A `RemoteFile` as a file to read; ``pieces`` of it, in order, are fetched ahead side by side."""

    def __init__(self, remote: RemoteFile, pieces: Sequence[tuple[int, int]] = ()) -> None:
        self._remote, self._place, self._closing = remote, 0, threading.Event()
        self._planned, self._pieces = bool(pieces), self._ahead(pieces)
        self._piece, self._begin = b"", 0  # the piece that is read, and its place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._remote.size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self._at(self._place, min(len(buffer), self._remote.size - self._place))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._closing.set()
        self._pieces.close()
        super().close()

    def _at(self, place: int, count: int) -> bytes | memoryview:
        """Return some of the ``count`` bytes at a place; none where it is behind the end."""
        if count <= 0:
            return b""
        remote, head = self._remote, self._remote.head
        if place == len(head) and not self._planned:
            remote.head = head = head + remote.fetch(place, place + count, self._wait)
        if place < len(head):
            return head[place : place + count]
        while place >= self._begin + len(self._piece):
            self._begin, self._piece = next(self._pieces, None) or (
                place,
                remote.fetch(place, place + count, self._wait),
            )
        if place < self._begin:
            return remote.fetch(place, min(place + count, self._begin), self._wait)
        return memoryview(self._piece)[place - self._begin :][:count]

    def _ahead(self, pieces: Sequence[tuple[int, int]]) -> Generator[tuple[int, bytes], None, None]:
        yield from run_ahead([partial(self._fetched, start, stop) for start, stop in pieces], AHEAD)

    def _fetched(self, start: int, stop: int) -> tuple[int, bytes]:
        return start, self._remote.fetch(start, stop, self._wait)

    def _wait(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise TransferError(f"{self._remote.name}: the file was closed")


def pieces_of(tensors: Sequence[StoredTensor]) -> list[tuple[int, int]]:
    """Return the ranges to fetch for tensors of one file, in order: near ones merged, long ones cut at `PIECE`."""
    ranges = sorted((tensor.offset, tensor.offset + tensor.nbytes) for tensor in tensors if tensor.nbytes)
    left = sum(tensor.nbytes for tensor in tensors) // GAPS
    bridged = set()
    for gap, begin in sorted((after[0] - before[1], after[0]) for before, after in pairwise(ranges)):
        if gap <= min(GAP, left):
            left -= gap
            bridged.add(begin)
    merged: list[tuple[int, int]] = []
    for begin, end in ranges:
        merged = [*merged[:-1], (merged[-1][0], end)] if begin in bridged else [*merged, (begin, end)]
    return [piece for whole in merged for piece in _cut(*whole)]


def _cut(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for start in range(begin, end, PIECE):
        yield start, min(end, start + PIECE)
