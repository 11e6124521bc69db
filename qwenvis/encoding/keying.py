"""Keys of the items of a call, and the cache in which their tokens are looked up and stored."""

from __future__ import annotations

import hashlib
import json
import math
import weakref
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwenvis.cache import Cache
from qwenvis.concurrency.tasks import Task
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.keys import ItemKey
from qwenvis.errors import InputError
from qwenvis.models import Config
from qwenvis.spec import ModelSpec
from qwenvis.version import NUMBERS


class Identity:
    """The SHA-256 of all that the bits of tokens depend on besides the item; its text needs the hash of the weights.

    It holds the weights weakly, so that results do not keep them in memory.
    """

    def __init__(self, spec: ModelSpec, isa: str, threads: int) -> None:
        """Take the facts of a tower whose weights have been read; ``threads`` hash them."""
        self._facts = [NUMBERS, spec.family, repr(spec.config), spec.format, isa]
        self._weights, self._threads = weakref.ref(spec.weights), threads
        self._hashes = spec.weights.hashes  # which stay when the weights are gone

    def __str__(self) -> str:
        """Return 64 hexadecimal digits. Raises InputError if the encoder is gone, and its weights were never hashed."""
        if not self._hashes:
            weights = self._weights()
            if weights is None:
                raise InputError(
                    "keys need the hash of the encoder's weights, and the encoder is gone: ask for the keys of one of "
                    "its results while it exists, or use a checkpoint of `qwenvis pack`, which stores the hash"
                )
            weights.sha256(self._threads)
        return hashlib.sha256(json.dumps([*self._facts, *self._hashes]).encode()).hexdigest()


class Times(NamedTuple):
    """The frames of a video that are encoded, and their times, as `Embeddings` has them; all empty for a still."""

    frame_indices: NDArray[np.int64] = np.zeros(0, np.int64)
    timestamps: NDArray[np.float64] = np.zeros(0)
    second_per_grid_ts: float = 0.0


class Keying:
    """The keys of the items of one call; with a ``cache``, items are looked up before their patches are cut."""

    def __init__(self, identity: Identity, config: Config, cache: Cache | None = None) -> None:
        """Take the cache, if the call is to use one, and the ``config`` of the tower, which its items must fit."""
        self.identity, self.config, self.cache = identity, config, cache
        self._writing: Task[None] | None = None
        if cache is not None:
            str(identity)  # hashed here by all threads, instead of by each of the threads that prepare items

    def key(self, pixels: str, grid: tuple[int, int, int], times: Times) -> ItemKey:
        """Return the key of an item from the hash of its pixels."""
        frames, stamps, seconds = times
        content = json.dumps([pixels, grid, frames.tolist(), stamps.tolist(), seconds])
        return ItemKey(hashlib.sha256(content.encode()).hexdigest(), self.identity)

    def find(self, key: ItemKey, grid: tuple[int, int, int]) -> Embeddings | None:
        """Return an item from the cache, if there is one and it fits the tower and its grid."""
        found = self.cache.get(str(key)) if self.cache is not None else None
        return found if found is not None and self._fits(found, grid) else None

    def store(self, items: Sequence[Embeddings]) -> None:
        """Write single items to the cache, if the call has one, in the background, once those before are written."""
        self.finish()
        if self.cache is not None and items:
            self._writing = Task(partial(_put_all, self.cache, items))
            self._writing.start()

    def finish(self) -> None:
        """Wait until all items are written, and free them."""
        if self._writing is not None:
            self._writing.finish()
            writing, self._writing = self._writing, None
            writing.result()

    def _fits(self, found: Embeddings, grid: tuple[int, int, int]) -> bool:
        arrays = [found.embeddings, *found.deepstack]
        shape = math.prod(grid) // self.config.merge_unit, self.config.out_hidden_size
        return (
            found.grid_thw.tolist() == [list(grid)]
            and len(arrays) == 1 + len(self.config.deepstack)
            and all(array.shape == shape and array.dtype == np.float32 for array in arrays)
        )


def _put_all(cache: Cache, items: Sequence[Embeddings]) -> None:
    for item in items:
        cache.put(item.keys[0], item)
