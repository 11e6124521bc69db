"""Calls that are made ahead or side by side: on threads where the system grants any, else by the thread that waits.

A ``ThreadPoolExecutor`` depends on its workers. It raises where no thread can start: at a limit of the system, or when
the interpreter shuts down. It waits for ever for a worker that did not survive a fork, or in a signal handler that
interrupts the start of a worker. Here a thread is a helper that may be missing: a call that no thread has begun, or
whose thread is gone, is made by the thread that asks for its result. No lock is held while a thread starts or a call is
made, so signal handlers and forks may come at any time.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock, get_ident, start_new_thread
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar, cast

K = TypeVar("K")
T = TypeVar("T")


class Task(Generic[T]):
    """A call whose result is asked for once."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call, self._process = call, os.getpid()
        self._making = allocate_lock()  # held until the call has been made; those who wait try to have it
        self._making.acquire()
        self._made = False
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def made(self) -> bool:
        """Whether the call has returned or raised."""
        return self._made

    def begin(self) -> bool:
        """Have a thread make the call; returns whether the system gives one."""
        return _started((self,))

    def run(self) -> None:
        """Make the call, unless somebody has begun it."""
        if self._taken():
            self._make()

    def finish(self) -> None:
        """Make the call, or wait for the thread that makes it."""
        if self._taken():
            self._make()
        elif not self._made:
            if self._abandoned:
                self._make()
            else:
                self._wait()

    def result(self) -> T:
        """Finish the call; return its result or raise its error, and forget both."""
        self.finish()
        value, error = self._value, self._error
        self._value = self._error = None
        if error is None:
            return cast(T, value)
        try:
            raise error
        finally:
            del error  # it holds this frame, which must not hold it

    def end(self) -> None:
        """Forget the call: nobody begins it from here on, and a thread that makes it is waited for."""
        if not (self._taken() or self._made or self._abandoned):
            self._wait()
        self._value = self._error = None

    def _taken(self) -> bool:
        """Whether the call falls to this thread, as the first that asks for it."""
        mine = [get_ident()]
        # A single step of the interpreter, so neither a signal handler nor another thread comes in between.
        return self.__dict__.setdefault("_taker", mine) is mine

    @property
    def _abandoned(self) -> bool:
        """Whether the thread that has begun the call will not end it.

        A thread that did not survive a fork will not, nor will one that stands still because the interpreter shuts
        down, nor this very thread, if a signal handler raised an error in it or garbage is collected in it.
        """
        return self._process != os.getpid() or sys.is_finalizing() or self.__dict__["_taker"] == [get_ident()]

    def _make(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error
            if not isinstance(error, Exception):  # KeyboardInterrupt does not wait until the result is asked for
                raise
        finally:
            self._made = True
            if self._making.locked():
                self._making.release()

    def _wait(self) -> None:
        self._making.acquire()
        self._making.release()


def ahead(
    calls: Iterable[tuple[K, Callable[[], T]]], beside: Callable[[K], bool] = lambda key: True
) -> Generator[tuple[K, Task[T]], None, None]:
    """Yield keys and their calls, made one after the other: each while the one before it is used.

    A call that may not be made ``beside`` the use of another waits until that is over. An error of ``calls`` is raised
    after what came before it.
    """
    coming: deque[tuple[K, Task[T]]] = deque()
    try:
        for key, call in calls:
            coming.append((key, Task(call)))
            if len(coming) > 1:
                coming[0][1].finish()
                if beside(key):
                    coming[1][1].begin()
                yield coming.popleft()
    except Exception:
        yield from _rest(coming)
        raise
    else:
        yield from _rest(coming)
    finally:
        for _, task in coming:
            task.end()


def _rest(coming: deque[tuple[K, Task[T]]]) -> Iterator[tuple[K, Task[T]]]:
    while coming:
        coming[0][1].finish()
        yield coming.popleft()


def side_by_side(calls: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """Yield the results of calls, in order, made on up to ``threads`` threads; the caller's is one of them.

    The first error, in order, is raised, and what nobody has begun by then is left.
    """
    tasks = [Task(call) for call in calls]
    queue = iter(tasks)
    try:
        for _ in range(min(threads, len(tasks)) - 1):
            if not _started(queue):
                break
        for task in tasks:
            while not task.made and (other := next(queue, None)):
                other.run()
            yield task.result()
    finally:
        for task in tasks:
            task.end()


def _started(tasks: Iterable[Task[T]]) -> bool:
    """Start a thread that makes calls in order; returns whether the system gives one."""
    try:
        # Not threading.Thread, whose start waits for the new thread, with a lock of all threads: no place for a signal.
        start_new_thread(_outputs, (tasks,))
    except (RuntimeError, MemoryError):  # too many threads, too little memory, or the interpreter shuts down
        return False
    return True


def _outputs(tasks: Iterable[Task[T]]) -> None:
    for task in tasks:
        task.run()
