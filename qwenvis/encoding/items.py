"""One item of a call: prepared for the tower, or found in the cache, or unusable."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.keys import ItemKey
from qwenvis.encoding.keying import Keying, Times
from qwenvis.errors import InputError, Place, QwenvisError, about
from qwenvis.images.step import Step, StepItem


class Call:
    """What the items of a call share: how they get their keys, if they get any, and what results record of them."""

    def __init__(self, keying: Keying | None = None) -> None:
        self.keying = keying

    def provenance(self, items: Sequence[Any]) -> dict[str, str]:
        """Return the facts that results of these ``items`` record about the call."""
        return {}

    def finish(self) -> None:
        """Wait until the items that were encoded are in the cache, if the call has one."""
        if self.keying is not None:
            self.keying.finish()


class CallItem(StepItem):
    """An item with its place in a call, which keeps its error instead of raising it.

    - ``error``: why it turned out to be unusable; the patches that it has written by then are invalid.
    - ``key``: the key of its tokens, from its last temporal step on, if the call has a `Keying`; else None.
    - ``hit``: whether the cache has its tokens: then it writes no patches.
    - ``found``: these tokens, until they are copied; else None.
    - ``size``: (height, width) in pixels before resizing; (0, 0) if it is unknown.
    """

    size: tuple[int, int] = 0, 0

    def __init__(self, call: Call, place: Place) -> None:
        self.call, self.place = call, place
        self.error: QwenvisError | None = None
        self.key: ItemKey | None = None
        self.found: Embeddings | None = None
        self.hit = False
        self._hashes: dict[int, bytes] = {}  # of each step by its number: the child of a fork may prepare steps again

    @abstractmethod
    def read(self, first: int, stop: int) -> Iterator[Step]:
        """Yield the temporal steps from ``first`` to ``stop``, as `StepItem.steps`."""

    @property
    def times(self) -> Times:
        """The frames of a video and their times."""
        return Times()

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """Write patches as `StepItem.fill`, but keep an InputError instead of raising it."""
        if self.error is None:
            try:
                with about(self.place):
                    return super().fill(first, stop, out)
            except InputError as error:
                self.error = error
        return stop - first, *self.grid[1:]

    def steps(self, first: int, stop: int) -> Iterator[Step]:
        """Yield the temporal steps whose patches the tower needs: none of an item that the cache has."""
        keying = self.call.keying
        if keying is None:
            return self.read(first, stop)
        if first == 0:
            self.key = self.found = None
            self.hit = False
            self._hashes = {}
            if keying.cache is not None:
                return self._sought(keying, stop)
        if self.hit:
            return iter(())
        return self._hashed(keying, first, self.read(first, stop))

    def _sought(self, keying: Keying, stop: int) -> Iterator[Step]:
        """Read the whole item and look it up; if the cache lacks it, return the steps up to ``stop``.

        An item of several micro-batches is read once more for that, so that memory never holds all its frames. It is
        hashed once more too: its key is that of the pixels that are encoded, even if they have changed meanwhile.
        """
        whole = stop == self.grid[0]
        steps = deque(self._hashed(keying, 0, self.read(0, self.grid[0])), None if whole else 0)
        self.found = keying.find(cast(ItemKey, self.key), self.grid)
        self.hit = self.found is not None
        if self.hit:
            return iter(())
        if whole:
            return iter(steps)
        self.key, self._hashes = None, {}
        return self._hashed(keying, 0, self.read(0, stop))

    def _hashed(self, keying: Keying, first: int, steps: Iterable[Step]) -> Iterator[Step]:
        """Yield the steps from ``first`` on, and hash their content; after the last step of the item comes its key."""
        for number, step in enumerate(steps, first):
            self._hashes[number] = hashlib.sha256(step.content.data).digest()
            yield step
        if len(self._hashes) == self.grid[0]:
            pixels = hashlib.sha256(step.facts + b"".join(map(self._hashes.__getitem__, range(self.grid[0]))))
            self.key = keying.key(pixels.hexdigest(), self.grid, self.times)
