"""The requests of a tower for tensors: the name and the shape of each tensor, and its receiver.

Building a tower collects its requests and reads nothing. A checkpoint then compares the whole list with its own
tensors, raises one error if they differ, and only then answers, tensor by tensor. A synthetic checkpoint is made from
the same list, so each tensor is named exactly once in the project: where it is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qwenvis.concurrency import tasks

Receiver = Callable[[np.ndarray], object]
Kept = TypeVar("Kept")

HASHED = 1 << 24  # bytes that are hashed as one piece, so that threads share the largest weight


@dataclass(frozen=True)
class Request:
    """A request for one tensor: its ``name`` below the tower's prefix, its ``shape``, and ``receive(array)``.

    A receiver raises FloatingPointError if the tensor, or what the receiver makes of it, is not finite.

    ``patches``: the number of patches that become one row of the tensor's product; 0 for a table, which has no product.
    """

    name: str
    shape: tuple[int, ...]
    receive: Receiver
    patches: int = 1


@dataclass(frozen=True)
class Weights:
    """A place in the tree of tensor names, with the lists of requests and of kept memory that the whole tree shares.

    ``format`` is the number format in which the weights of products are packed, a name of `ops.formats()`. ``hashes``
    holds the result of `sha256`, once it is known.
    """

    prefix: str = ""
    format: str = "f32"
    requests: list[Request] = field(default_factory=list)
    kept: list[object] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    patches: int = 1

    def scope(self, name: object) -> Weights:
        """Return the place below this place: ``weights.scope("blocks").scope(0)`` asks for ``blocks.0.*``."""
        return replace(self, prefix=f"{self.prefix}{name}.")

    def per(self, patches: int) -> Weights:
        """Return this place for products whose rows are made of ``patches`` patches each, as `Request` explains."""
        return replace(self, patches=patches)

    def keep(self, memory: Kept) -> Kept:
        """List and return ``memory`` of the tower, an array or a `PackedWeight`. The order is always the same."""
        self.kept.append(memory)
        return memory

    def ask(self, name: str, shape: tuple[int, ...], receive: Receiver) -> None:
        """Ask for a tensor. ``receive`` gets it in its stored float dtype, contiguous, and must not keep it."""
        self.requests.append(Request(self.prefix + name, tuple(shape), receive, self.patches))

    def sha256(self, threads: int) -> str:
        """Return the SHA-256, in hexadecimal, of all kept memory, whose weights have been read.

        Computed once: the hash of the hashes of pieces, which ``threads`` threads share.
        """
        if not self.hashes:
            memory = map(as_bytes, self.kept)
            pieces = [part[first : first + HASHED] for part in memory for first in range(0, part.size, HASHED)]
            digests = tasks.run_parallel([partial(_sha256, piece.data) for piece in pieces], threads)
            self.hashes[:] = [_sha256(b"".join(digests)).hex()]
        return self.hashes[0]


def as_bytes(memory: Any) -> NDArray[np.uint8]:
    """View kept memory as bytes."""
    array: NDArray[Any] = memory if isinstance(memory, np.ndarray) else memory.memory
    return array.reshape(-1).view(np.uint8)


def _sha256(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()
