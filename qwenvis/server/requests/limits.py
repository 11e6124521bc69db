"""The limits of a service, and the memory that its requests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from qwenvis.errors import counted
from qwenvis.server.requests.refusals import Refusal

HEADERS = 1 << 14  # bytes of the headers of a request, and of its path and query
REQUEST = 1 << 16  # bytes that a request counts besides what it sends: its task, headers, and answer to errors


def _limit(default: int, unit: str, text: str) -> Any:
    """Return a field of `Limits`, with its unit (bytes, pixels, seconds or none) and its words."""
    return field(default=default, metadata={"unit": unit, "text": text})


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and what all requests together may take. `qwenvis serve` has an option for each.

    Image pixels are those before resizing. Patches are those that the tower gets, after resizing; the default is what
    the preprocessor configs of the published checkpoints allow at most.
    """

    max_body: int = _limit(64_000_000, "bytes", "the largest body of a request")
    max_items: int = _limit(64, "", "the most images and videos of a request")
    max_image_pixels: int = _limit(89_478_485, "pixels", "the largest image, or frame of a video, before resizing")
    max_patches: int = _limit(65_536, "", "the most patches of an image or a video, after resizing")
    max_video_frames: int = _limit(36_000, "", "the most frames that the file of a video holds")
    max_video_seconds: int = _limit(1200, "seconds", "the longest video")
    memory: int = _limit(2_000_000_000, "bytes", "the most memory that all requests hold at once (docs/serve.md)")
    max_requests: int = _limit(256, "", "the most requests that are served at once")
    read_seconds: int = _limit(30, "seconds", "the time for a body to arrive, and for a client to go on reading")
    wait_seconds: int = _limit(120, "seconds", "the time for an item to be decoded, and to wait until it is encoded")


class Memory:
    """The bytes that requests hold: bodies, pixels, tokens and answers, each counted before it is allocated."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = self.requests = 0

    @property
    def full(self) -> bool:
        """Whether a request would be refused, however small it is."""
        return self.requests >= self._limits.max_requests or self.held + REQUEST > self._limits.memory

    @contextmanager
    def account(self) -> Iterator[Account]:
        """Count a request until the block ends. Raises Refusal if there are too many."""
        if self.requests >= self._limits.max_requests:
            raise Refusal(429, f"{counted(self.requests, 'request')} are being served; no more are accepted now")
        self.requests += 1
        account = Account(self)
        try:
            account.add(REQUEST)
            yield account
        finally:
            self.requests -= 1
            self.held -= account.held

    def take(self, nbytes: int, held: int) -> None:
        """Take bytes for a request that holds some. Raises Refusal if they do not fit, or never will."""
        bound = self._limits.memory
        if held + nbytes > bound:
            raise Refusal(413, f"the request needs {held + nbytes:,} bytes of memory; this service has {bound:,}")
        if self.held + nbytes > bound:
            raise Refusal(429, f"other requests hold {self.held:,} of the {bound:,} bytes of memory; try again later")
        self.held += nbytes


class Account:
    """The bytes that one request holds, which are given back when its answer has been sent."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.held = 0

    def add(self, nbytes: int) -> None:
        """Count bytes that the request is about to take. Raises Refusal if there is no memory for them."""
        self._memory.take(nbytes, self.held)
        self.held += nbytes
