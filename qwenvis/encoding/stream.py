"""Streams of items of any length: encoded in runs, returned one by one."""

from __future__ import annotations

import math
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from qwenvis.embeddings import Embeddings
from qwenvis.encoding.batching import Plan, StepRun, ahead
from qwenvis.encoding.inputs import Entry
from qwenvis.encoding.passage import Passage
from qwenvis.errors import QwenvisError, detached


class Stream(Iterator[Embeddings]):
    """The iterator that `Encoder.encode_iter` returns, which can go on after an error.

    If an item cannot be used, ``next`` raises its error, and the next call returns the item after it. With
    ``on_error="skip"`` the errors are kept in ``errors`` instead, a list that may be cleared at any time. Other errors,
    such as those of the iterable that was passed, and interruptions end the stream.

    A stream belongs to one reader at a time: as for a generator, ``next`` and `close` raise ValueError while another
    thread, or the iterable that was passed, is inside of either.
    """

    def __init__(self, results: Generator[Embeddings | QwenvisError, None, None], *, skip: bool) -> None:
        """``results`` are the items in order, and the errors of those that cannot be used in their place."""
        self.errors: list[QwenvisError] = []
        self._results, self._skip = results, skip
        self._reading = allocate_lock()  # without the GIL, a generator that two threads resume at once may crash

    def __next__(self) -> Embeddings:
        """The next item. Raises the error of an item that cannot be used, or whatever ended the stream."""
        with self._read():
            for result in self._results:
                if isinstance(result, Embeddings):
                    return result
                if not self._skip:
                    raise result
                self.errors.append(detached(result))
        raise StopIteration

    def close(self) -> None:
        """End the stream, and drop the items that have been prepared."""
        with self._read():
            self._results.close()

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Be the only reader. Nobody waits for another: the child of a fork would, for ever."""
        if not self._reading.acquire(blocking=False):
            raise ValueError("the stream is being read already; give each thread a stream of its own")
        try:
            yield
        finally:
            self._reading.release()


@dataclass
class Run:
    """Items that go through the tower together, and the error of the item after them, if it cannot be planned.

    ``ends``: the stream ends with that error.
    """

    entries: list[Entry]
    plan: Plan
    failure: Exception | None = None
    ends: bool = False


@dataclass(frozen=True)
class Runs:
    """The runs of a stream: items within a budget of patches, planned by their makers."""

    makers: Iterator[Callable[[], Entry]]
    columns: int
    budget: int

    def __iter__(self) -> Iterator[Run]:
        """Yield runs; an item that cannot be planned ends its run, so that its error comes soon."""
        entries: list[Entry] = []
        held = 0
        for entry, failure, ends in _planned(self.makers):
            patches = 0 if entry is None else math.prod(entry.grid)
            if entries and held + patches > self.budget:
                yield self._run(entries)
                entries, held = [], 0
            if entry is None:
                yield self._run(entries, failure, ends)
                entries, held = [], 0
            else:
                entries.append(entry)
                held += patches
        if entries:
            yield self._run(entries)

    def _run(self, entries: list[Entry], failure: Exception | None = None, ends: bool = False) -> Run:
        return Run(entries, Plan(entries, self.columns), failure, ends)


def encoded(
    runs: Runs, begin: Callable[[list[Entry], Plan], Passage], provenance: Callable[[], dict[str, str]], threads: int
) -> Generator[Embeddings | QwenvisError, None, None]:
    """The items in order, and the errors of those that cannot be used in their place.

    No more than two runs are held. An error of the makers comes after the items before it.
    """
    waiting: deque[Run] = deque()

    def parts() -> Iterator[StepRun]:
        for run in runs:
            waiting.append(run)
            yield from run.plan.parts(runs.budget) or [StepRun(run.plan, [])]

    for part, coming in ahead(parts(), runs.budget, threads):
        if part.first:
            passage = begin(waiting[0].entries, waiting[0].plan)
        batch = coming.result()
        passage.add(part, batch)
        del coming, batch  # and its patches, before the next ones are made
        if part.last:
            yield from _in_order(waiting.popleft(), passage.result(provenance()))


def _in_order(run: Run, out: Embeddings) -> Iterator[Embeddings | QwenvisError]:
    """The items of a run and its errors, as they came. Raises what ends the stream."""
    given = iter(out)
    for entry in run.entries:
        yield _apart(next(given)) if entry.error is None else entry.error
    if run.failure is not None:
        if run.ends or not isinstance(run.failure, QwenvisError):
            raise run.failure
        yield run.failure


def _planned(makers: Iterator[Callable[[], Entry]]) -> Iterator[tuple[Entry | None, Exception | None, bool]]:
    """Plan each item. Yields the item, or its error, or the error that ends the makers, with whether it does."""
    while True:
        try:
            make = next(makers)
        except StopIteration:
            return
        except Exception as error:
            yield None, error, True
            return
        try:
            entry = make()
        except Exception as error:
            yield None, error, False
        else:
            yield entry, None, False


def _apart(item: Embeddings) -> Embeddings:
    """Copy the arrays of an item: a view would keep the arrays of the whole run alive."""
    return replace(
        item,
        embeddings=item.embeddings.copy(),
        hidden_states=[state.copy() for state in item.hidden_states],
        deepstack=[tokens.copy() for tokens in item.deepstack],
    )
