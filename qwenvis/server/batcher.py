"""One thread that encodes the items of all requests, those that wait together in one forward pass."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import numpy as np

from qwenvis.embeddings import Embeddings
from qwenvis.encoding.batching import Plan
from qwenvis.encoding.inputs import InputItem
from qwenvis.encoding.items import Call
from qwenvis.encoding.runner import Runner
from qwenvis.encoding.stream import Group, stream_results
from qwenvis.errors import QwenvisError
from qwenvis.geometry import PATCH_BUDGET
from qwenvis.server.metrics import Metrics


class Encoded(NamedTuple):
    """An item that was encoded, and when: clock times of `time.monotonic`."""

    out: Embeddings
    since: float
    begun: float
    ended: float


class Waiting(NamedTuple):
    """An item in the queue, and the future that gets its tokens or its error."""

    item: InputItem
    future: Future[Encoded]
    since: float

    @property
    def patches(self) -> int:
        """The number of patches that the item has."""
        return math.prod(self.item.grid)


class Batcher:
    """A queue of items, and the thread that encodes them in order.

    A forward pass takes the first item that waits, and those after it within the patch budget: nobody waits for a batch
    to fill. A future that is cancelled takes its item out of the queue. The queue has no bound of its own: what it
    holds is counted in the memory of the service.
    """

    def __init__(self, runner: Runner, call: Call, columns: int, metrics: Metrics) -> None:
        """Take the runner, the ``call`` that the forward passes belong to, and the length of a row of patches."""
        self._runner, self._call, self._columns, self._metrics = runner, call, columns, metrics
        self._queue: dict[Future[Encoded], Waiting] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_per_patch = 0.0
        self._thread = threading.Thread(target=self._run, name="encode", daemon=True)
        metrics.queue_items.set_function(lambda: len(self._queue))
        metrics.queue_patches.set_function(self._waiting_patches)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Encode what is in the queue, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def running(self) -> bool:
        """Whether items that are submitted will be encoded."""
        return self._thread.is_alive() and not self._closing

    def submit(self, item: InputItem) -> Future[Encoded]:
        """Put an item into the queue; the future gets its tokens, or the error of the item."""
        future: Future[Encoded] = Future()
        with self._changed:
            self._queue[future] = Waiting(item, future, time.monotonic())
            self._changed.notify()
        future.add_done_callback(self._forget)
        return future

    def expected_wait(self) -> float:
        """Return the seconds after which the queue is likely to be empty, at the speed of the last forward pass."""
        return self._waiting_patches() * self._seconds_per_patch

    def _forget(self, future: Future[Encoded]) -> None:
        with self._changed:
            self._queue.pop(future, None)

    def _waiting_patches(self) -> int:
        with self._changed:
            return sum(waiting.patches for waiting in self._queue.values())

    def _run(self) -> None:
        for batch in self._batches():
            self._encode(batch)

    def _batches(self) -> Iterator[list[Waiting]]:
        """Yield the items of each forward pass, until the queue is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                batch = self._taken()
            if batch := [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]:
                yield batch
            del batch  # frees the items while the thread waits

    def _taken(self) -> list[Waiting]:
        """Take the first item out of the queue, and those after it within the patch budget."""
        batch: list[Waiting] = []
        patches = 0
        for waiting in self._queue.values():
            patches += waiting.patches
            if batch and patches > PATCH_BUDGET:
                break
            batch.append(waiting)
        for waiting in batch:
            del self._queue[waiting.future]
        return batch

    def _encode(self, batch: list[Waiting]) -> None:
        """Encode a batch, and resolve its futures; after an error of no item, each item gets a pass of its own."""
        begun = time.monotonic()
        try:
            plan = Plan([waiting.item for waiting in batch], self._columns)
            begin = partial(self._runner.begin, self._call)
            results = list(stream_results(self._call, [Group(plan)], begin, PATCH_BUDGET, self._runner.threads))
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for waiting in batch:
                    self._encode([waiting])
            return
        ended = time.monotonic()
        self._seconds_per_patch = (ended - begun) / sum(waiting.patches for waiting in batch)
        self._metrics.encode_seconds.observe(ended - begun)
        for waiting, result in zip(batch, results, strict=True):
            self._metrics.queue_seconds.observe(begun - waiting.since)
            if isinstance(result, QwenvisError):
                waiting.future.set_exception(result)
            else:
                self._metrics.items.inc()
                self._metrics.tokens.inc(len(result.embeddings))
                waiting.future.set_result(Encoded(_alone(result), waiting.since, begun, ended))


def _alone(item: Embeddings) -> Embeddings:
    """Return an item as if it had been encoded alone: a still image has no times, as it has beside a video."""
    if any(map(len, item.frame_indices)):
        return item
    return item._with(frame_indices=[], timestamps=[], second_per_grid_ts=np.zeros(0))
