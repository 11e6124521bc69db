"""Streams of images and videos of any length: encoded in groups, returned one item at a time."""

from __future__ import annotations

import math
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qwenvis.embeddings import Embeddings
from qwenvis.encoding.batching import MicroBatch, Plan, prefetched
from qwenvis.encoding.inputs import InputItem, Inputs
from qwenvis.encoding.items import Call
from qwenvis.encoding.runner import Run
from qwenvis.errors import QwenvisError, without_traceback


class Stream(Iterator[Embeddings]):
    """The iterator that `Encoder.encode_iter` returns: one `Embeddings` for each image and video, in order.

    An item that cannot be used raises its error from ``next``, and the following ``next`` returns the item after it.
    With ``on_error="skip"`` such an item is left out, and its error is appended to ``errors``. Any other exception,
    such as an error of the iterable that was passed or a KeyboardInterrupt, ends the stream.

    A stream has one reader at a time: like those of a generator, ``next`` and `close` raise ValueError while another
    thread, or the iterable that was passed, is inside either of them.

    - ``errors``: list of `QwenvisError`, the errors of the items that were skipped so far; may be cleared at any time.
    """

    def __init__(self, results: Generator[Embeddings | QwenvisError, None, None], *, skip: bool) -> None:
        """Iterate over ``results``: the items in order, and in the place of an unusable item its error."""
        self.errors: list[QwenvisError] = []
        self._results, self._skip = results, skip
        self._reading = allocate_lock()  # without the GIL, a generator that two threads resume at once may crash

    def __next__(self) -> Embeddings:
        """Return the next item.

        Raises ImageError, VideoError, LimitError or NumericalError for an item that cannot be used, unless it is
        skipped; ConfigError or InputError where the checkpoint or the arguments cannot serve for items of that kind;
        and StopIteration at the end of the stream.
        """
        with self._single_reader():
            for result in self._results:
                if isinstance(result, Embeddings):
                    return result
                if not self._skip:
                    raise result
                self.errors.append(without_traceback(result))
        raise StopIteration

    def close(self) -> None:
        """End the stream and free the items that have been prepared."""
        with self._single_reader():
            self._results.close()

    @contextmanager
    def _single_reader(self) -> Iterator[None]:
        """Refuse a second reader; letting it wait would hang the child of a fork."""
        if not self._reading.acquire(blocking=False):
            raise ValueError("another thread is reading this stream; give each thread its own stream")
        try:
            yield
        finally:
            self._reading.release()


@dataclass
class Group:
    """Items of a stream that one run encodes, and the error of the item after them if that item cannot be planned.

    ``ends``: whether the stream ends with that error.
    """

    plan: Plan[InputItem]
    error: Exception | None = None
    ends: bool = False

    def micro_batches(self, budget: int) -> list[MicroBatch]:
        """Split the plan as `Plan.micro_batches`; an empty plan is one empty micro-batch, so that its error comes."""
        return self.plan.micro_batches(budget) or [MicroBatch(self.plan, [])]

    def results(self, out: Embeddings) -> Iterator[Embeddings | QwenvisError]:
        """Yield the items that were encoded, from ``out``, and the errors of the others, in order.

        Raises the error that ends the stream.
        """
        encoded = iter(out)
        for item in self.plan.items:
            yield _copied(next(encoded)) if item.error is None else item.error
        if self.error is not None:
            if self.ends or not isinstance(self.error, QwenvisError):
                raise self.error
            yield self.error


def grouped(inputs: Inputs, factories: Iterable[Callable[[], InputItem]], budget: int) -> Iterator[Group]:
    """Plan the items of all factories in groups of at most ``budget`` patches, or of one item.

    An item that cannot be planned ends its group, so that its error comes soon.
    """
    items: list[InputItem] = []
    held = 0
    for item, error, ends in _planned(iter(factories)):
        patches = 0 if item is None else math.prod(item.grid)
        if items and held + patches > budget:
            yield Group(inputs.plan(items))
            items, held = [], 0
        if item is None:
            yield Group(inputs.plan(items), error, ends)
            items, held = [], 0
        else:
            items.append(item)
            held += patches
    if items:
        yield Group(inputs.plan(items))


def stream_results(
    call: Call, groups: Iterable[Group], begin: Callable[[Plan[InputItem]], Run], budget: int, threads: int
) -> Generator[Embeddings | QwenvisError, None, None]:
    """Encode the groups of a call; yield their items in order, and in the place of an unusable item its error.

    At most two groups are in memory: one is encoded while the next is prepared.
    """
    waiting: deque[Group] = deque()

    def micro_batches() -> Iterator[MicroBatch]:
        for group in groups:
            waiting.append(group)
            yield from group.micro_batches(budget)

    try:
        for micro_batch, task in prefetched(micro_batches(), budget, threads):
            if micro_batch.first:
                run = begin(waiting[0].plan)
            batch = task.result()
            run.encode(micro_batch, batch)
            del task, batch  # frees the patches before the next ones are prepared
            if micro_batch.last:
                yield from waiting.popleft().results(run.result())
    finally:
        call.finish()


def _planned(factories: Iterator[Callable[[], InputItem]]) -> Iterator[tuple[InputItem | None, Exception | None, bool]]:
    """Call each factory; yield (item, None, False), or (None, its error, whether the error ends the stream)."""
    while True:
        try:
            factory = next(factories)
        except StopIteration:
            return
        except Exception as error:
            yield None, error, True
            return
        try:
            item = factory()
        except Exception as error:
            yield None, error, False
        else:
            yield item, None, False


def _copied(item: Embeddings) -> Embeddings:
    """Copy the arrays of an item: views would keep the arrays of its whole group alive."""
    return item._with(
        embeddings=item.embeddings.copy(),
        hidden_states=[state.copy() for state in item.hidden_states],
        deepstack=[tokens.copy() for tokens in item.deepstack],
    )
